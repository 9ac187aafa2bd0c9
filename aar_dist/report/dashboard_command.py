"""``aar-dist dashboard``: how a run goes.

aar-dist dashboard out/aar                  # out/aar/dashboard.html: loss, speed, optimizer, machines, reconstructions
aar-dist dashboard out/aar --every 30       # written anew while the run goes on; an open page follows
aar-dist dashboard out/aar --wandb          # the same panels as a saved workspace of the run's W&B project

The page needs no server and nothing beside it. The workspace needs `pip install aar_dist[dashboard]` and a key; each
call saves one.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.cli import Parser, human_bytes
from aar_dist.base.errors import ConfigError, user_entry

NAME = "dashboard.html"


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Write the page, or save the workspace."""
    parser = Parser(__doc__, prog="aar-dist dashboard")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--out", type=Path, help=f"the HTML file (default: {NAME} in RUN)")
    parser.add_argument(
        "--every", type=float, metavar="S", help="write it anew every S seconds until the run is finished"
    )
    parser.add_argument("--wandb", action="store_true", help="save the panels as a workspace at W&B instead")
    parser.add_argument("--entity", help="with --wandb: team or user (default: the run's, or the account's)")
    args = parser.parse_args(argv)
    if args.every is not None and args.every <= 0:
        raise ConfigError("--every must be positive")
    if args.wandb:
        print(_save(args.run, args.entity))
        return
    out = args.out or args.run / NAME
    from aar_dist.report.dashboard import write_dashboard

    while not write_dashboard(args.run, out, refresh_s=args.every) and args.every:
        time.sleep(args.every)
    print(f"{out}: {human_bytes(out.stat().st_size)}")


def _save(run: Path, entity: str | None) -> str:
    """The address of the workspace."""
    if not (run / "config.yaml").is_file():
        raise ConfigError(f"{run}: no run directory, expected config.yaml")
    from aar_dist.training.tracking.config import check_key
    from aar_dist.training.tracking.record import Record
    from aar_dist.training.tracking.sending import identity, settings
    from aar_dist.training.tracking.workspace import save_workspace

    check_key()
    record = Record(run.resolve())
    who = identity(record, *settings(record))
    return save_workspace(who.project, entity or who.entity)
