"""``aar-dist sync``: send runs to Weights & Biases, now or again.

aar-dist sync out/aar                 # a run that was offline, or whose server was away
aar-dist sync out/*                   # several; those that have nothing new take a second each
aar-dist sync out/aar --every 60      # a run that trains on a machine without network, from one that has it

Everything comes from the run directory. The server is asked which steps it has, and gets those that follow: call it as
often as you like, also while the run goes on. It needs a key: WANDB_API_KEY, or `wandb login`.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aar_dist.base.cli import Parser
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.training.tracking.config import check_key
from aar_dist.training.tracking.record import Record


@dataclass(frozen=True)
class Outcome:
    """What a pass over one run did."""

    n_sent: int
    """Steps."""
    last: int
    """Last step that the server has."""
    waiting: bool
    """Whether the last step of the file was held back."""
    url: str


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Send each run; the first that fails ends the command."""
    parser = Parser(__doc__, prog="aar-dist sync")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--every", type=float, metavar="S", help="do it again every S seconds until all are finished")
    parser.add_argument(
        "--all", action="store_true", help="the last step of a run that was killed, too: it may lack its validation"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="longest wait for the server (30)")
    args = parser.parse_args(argv)
    records = [_record(path) for path in args.runs]
    if args.timeout <= 0 or (args.every is not None and args.every <= 0):
        raise ConfigError("--timeout and --every must be positive")
    check_key()
    while True:
        for record in records:
            print(_told(record, sync(record, everything=args.all, timeout_s=args.timeout)), flush=True)
        if not args.every or all(record.finished for record in records):
            return
        time.sleep(args.every)


def _record(path: Path) -> Record:
    if not (path / "metrics.jsonl").is_file() or not (path / "config.yaml").is_file():
        raise ConfigError(f"{path}: no run directory, expected config.yaml and metrics.jsonl")
    return Record(path.resolve())


def _told(record: Record, done: Outcome | None) -> str:
    if done is None:
        return f"{record.root}: is being sent by {record.whose_turn()}"
    steps = f"{done.n_sent} steps sent, to step {done.last}" if done.n_sent else f"nothing new after step {done.last}"
    waiting = "; the step after it waits for its end (--all sends it)" if done.waiting else ""
    return f"{record.root}: {steps}{waiting}: {done.url}"


def sync(record: Record, *, everything: bool = False, timeout_s: float = 30.0) -> Outcome | None:
    """Send what the server lacks of one run; None while another process does.

    Raises:
        TrackingError: the server was not reached, refused, or did not keep what it was sent.
    """
    os.environ["WANDB_SILENT"] = "true"
    from aar_dist.training.tracking.mirror import TrackingError
    from aar_dist.training.tracking.sending import connect

    with ExitStack() as stack:
        turn = record.take_turn()
        if turn is None:
            return None
        stack.enter_context(turn)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aar-dist-sync-")))
        trains = record.trains()
        sender = connect(record, mode="online", folder=scratch, timeout_s=timeout_s, ends=not trains)
        sender.close(ended=not trains, everything=everything)
        there = sender.mirror.arrived(sender.steps.last, timeout_s)
        if there < sender.steps.last:
            raise TrackingError(
                f"{record.root}: W&B has step {there} of {sender.steps.last}; the rest did not arrive: run it again"
            )
        return Outcome(sender.n_sent, there, sender.steps.open is not None, sender.mirror.url or "")
