"""``aar-dist doctor``: before a launch, what would be wrong with it.

aar-dist doctor [--run DIR] [--shards DIR …]                    this machine
aar-dist doctor --hostfile hosts [--run DIR] [--shards DIR …]   every host, and what is between them
"""

import json
from collections.abc import Sequence
from typing import Any

from aar_dist.base.cli import Parser
from aar_dist.base.errors import user_entry

PROBLEM_EXIT = 1
PORT = 29500


def _parser() -> Parser:
    parser = Parser(__doc__, prog="aar-dist doctor")
    parser.add_argument("--hostfile", metavar="FILE", help="check every host of it over ssh (lines: NAME slots=N)")
    parser.add_argument("--run", metavar="DIR", help="the run directory: room, permissions, shared by all hosts")
    parser.add_argument("--shards", metavar="DIR", nargs="+", default=[], help="shard sets: whole, the same everywhere")
    parser.add_argument("--slots", type=int, default=0, metavar="N", help="ranks of this machine, without a hostfile")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"the launch's --master_port ({PORT})")
    parser.add_argument("--warm", action="store_true", help="compile DeepSpeed's helper where it is missing (a minute)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Print what was found; exit code 1 if anything of it would stop a launch."""
    options = _parser().parse_args(argv)
    from aar_dist.training.doctor import examine, table  # torch is imported here, and not for --help
    from aar_dist.training.doctor.finding import Wanted, worst

    wanted = Wanted(slots=options.slots, run=options.run, shards=options.shards, port=options.port, warm=options.warm)
    found = examine.hosts(options.hostfile, wanted) if options.hostfile else examine.this_machine(wanted)
    state = worst([each.finding for each in found])
    if options.json:
        print(json.dumps({"state": state, "findings": [_row(each) for each in found]}, indent=1))
    else:
        table.show(found, many=bool(options.hostfile))
    if state == "problem":
        raise SystemExit(PROBLEM_EXIT)


def _row(each: Any) -> dict[str, str]:
    return {"host": each.host, **vars(each.finding)}
