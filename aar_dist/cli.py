"""``aar-dist``: the small tools.

aar-dist COMMAND …      each command lives beside what it works on and is imported only when it is called
"""

import importlib
import sys
from collections.abc import Sequence

from aar_dist.base.errors import ConfigError, run_door, user_entry

COMMANDS = {
    "convert": ("aar_dist.recordings.convert:main", "published data sets or a table -> HDF5 recordings (--list)"),
    "simulate": ("aar_dist.recordings.simulate:main", "a simulated herd, to try things on"),
    "inspect": ("aar_dist.training.inspect:main", "what a shard set, a configuration or a stored model holds"),
    "doctor": ("aar_dist.training.doctor.command:main", "whether this machine, or every host, is fit for a launch"),
    "plan": ("aar_dist.training.sizes.plan:main", "what a run on a cluster will read and wait for; what fits a GPU"),
    "audit": ("aar_dist.evaluation.audit_command:main", "what is recorded twice, and whether it leaks between folds"),
    "embed": ("aar_dist.evaluation.embed:main", "what a stored model makes of every window, as Parquet"),
    "predict": (
        "aar_dist.evaluation.predict:main",
        "who did what, from when to when: ethograms of new recordings",
    ),
    "env": ("aar_dist.base.carried:main", "this shell's environment for the hosts of a launch (--hostfile)"),
    "report": ("aar_dist.report.command:main", "one page that shows what a model is worth"),
    "dashboard": ("aar_dist.report.dashboard_command:main", "one page that shows how a run goes; the same at W&B"),
    "sync": ("aar_dist.training.tracking.sync:main", "send runs to Weights & Biases that were offline, or are now"),
    "store": ("aar_dist.store.commands:main", "models that a team shares: ls, show, pull, push, verify, rm"),
    "export": (
        "aar_dist.evaluation.exporting.command:main",
        "a stored model as one file that needs none of this (onnx, torch); arrays (npy)",
    ),
    "verify": ("aar_dist.training.verify:main", "a shard set, a checkpoint or a stored model against its hashes"),
}


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Run one command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return
    name, *rest = arguments
    if name not in COMMANDS:
        _unknown(name)
    module, function = COMMANDS[name][0].split(":")
    getattr(importlib.import_module(module), function)(rest)


def door() -> None:
    """The ``aar-dist`` on the PATH."""
    run_door(main)


def _unknown(name: str) -> None:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
    raise ConfigError(f"aar-dist {name}: no such command; {hint}")


def _help() -> str:
    rows = "\n".join(f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items())
    return (
        "usage: aar-dist COMMAND …\n\n"
        f"{rows}\n\n"
        "aar-dist COMMAND --help tells more. Beside it: shards/build.py (recordings -> shards), "
        "launch/pretrain.py (training)."
    )
