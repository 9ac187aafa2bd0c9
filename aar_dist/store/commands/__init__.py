"""``aar-dist store``: the models that a team shares, in a folder, a bucket or behind a web server.

aar-dist store ls [NAME]                            what there is
aar-dist store show NAME[@3]                        its card, its hashes, what starts from it
aar-dist store pull NAME[@3] [FOLDER]               a copy here, verified
aar-dist store push FOLDER|RUN|URL [--name NAME]    a finished run's model, or a version of another store
aar-dist store verify [NAME[@3]]                    every file against its hash
aar-dist store rm NAME@3                            take a version out; its number is never used again

--store FOLDER|URL says which store (s3://bucket/team, https://host/models are read); without it the variable
AAR_DIST_STORE does. See docs/store.md.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from aar_dist.base.errors import ConfigError, user_entry

ACTS = {
    "ls": "aar_dist.store.commands.listing:ls",
    "show": "aar_dist.store.commands.listing:show",
    "pull": "aar_dist.store.commands.moving:pull",
    "push": "aar_dist.store.commands.moving:push",
    "verify": "aar_dist.store.commands.keeping:verify",
    "rm": "aar_dist.store.commands.keeping:rm",
}


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Do one of them."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return
    act, *rest = arguments
    if act not in ACTS:
        near = difflib.get_close_matches(act, ACTS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ACTS)}"
        raise ConfigError(f"aar-dist store {act}: no such thing to do; {hint}")
    module, function = ACTS[act].split(":")
    getattr(importlib.import_module(module), function)(rest)
