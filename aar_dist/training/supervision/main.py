"""The command behind ``launch/supervise.py``. See docs/supervision.md."""

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from aar_dist.base.cli import Parser
from aar_dist.base.config import arguments
from aar_dist.base.errors import ConfigError, user_entry
from aar_dist.training.config import RunConfig
from aar_dist.training.run_directory import RunDirectory
from aar_dist.training.supervision import attempts
from aar_dist.training.supervision.cluster import Cluster
from aar_dist.training.supervision.hosts import hosts_of
from aar_dist.training.supervision.launching import Patience
from aar_dist.training.supervision.supervisor import supervise

USAGE = "supervise.py [--hostfile F] [--num_accelerators N] … SCRIPT --config FILE --out RUN …"
WAITS = {
    "wait_s": "wait so long for missing hosts before going on with fewer ranks",
    "grace_s": "so long may ranks save whose launcher is gone",
    "stall_s": "an attempt without a step for so long is ended",
}
"""Field of ``Patience`` -> its help."""


@user_entry
def main(argv: Sequence[str] | None = None) -> None:
    """Supervise a run, or show its attempts."""
    given = _parser().parse_args(arguments() if argv is None else argv)
    if given.status:
        return show(Path(given.status))
    if not given.script:
        raise ConfigError(f"the training script is missing; expected: {USAGE}")
    config = configuration(given.script)
    hosts = hosts_of(given.hostfile) if given.hostfile else []
    _not_for_slurm(given.hostfile)
    if hosts and not shutil.which("pdsh"):
        raise ConfigError("pdsh is not installed, and deepspeed starts the hosts with it: apt-get install pdsh")
    directory = RunDirectory.of(config.out)
    cluster = Cluster(hosts, given.num_accelerators or _accelerators(), directory.root, given.probe_s)
    patience = Patience(given.max_failures, given.wait_s, given.grace_s, given.stall_s)

    def fits(ranks: int) -> bool:
        try:
            config.deepspeed.check_ranks(ranks)
            config.train.micro_batches(ranks)
        except ConfigError:
            return False
        return True

    raise SystemExit(supervise(given.script, directory, cluster, patience, fits))


def configuration(script: Sequence[str]) -> RunConfig:
    """What the ranks will read, so that a mistake in it is told before anything is launched."""
    name, *flags = script
    if not Path(name).is_file():
        raise ConfigError(f"{name}: no such training script")
    if Path(name).name == "finetune.py":
        from aar_dist.training.finetuning.pretrained import load_config

        return load_config(flags)
    if Path(name).name == "pretrain.py":
        from aar_dist.base.config import load
        from aar_dist.training.config import SCHEMA

        return load(SCHEMA, flags)
    raise ConfigError(f"{name}: only launch/pretrain.py and launch/finetune.py can be supervised")


def show(run: Path) -> None:
    """The table of all attempts."""
    made = attempts.read(run)
    if not made:
        raise ConfigError(f"{run / attempts.NAME}: no attempt is recorded there; give the run directory (--out)")
    print(attempts.table(made))


def _parser() -> Parser:
    parser = Parser(__doc__, prog="supervise.py", usage=USAGE)
    parser.add_argument("--status", metavar="RUN", help="show the attempts of a run, and leave")
    parser.add_argument("--hostfile", help="lines of NAME slots=N; default: this machine alone")
    parser.add_argument("--num_accelerators", type=int, help="ranks of this machine; default: its GPUs, or 1")
    default = Patience()
    parser.add_argument(
        "--max_failures", type=int, default=default.max_failures,
        help="give up after so many attempts in a row without a newer checkpoint (%(default)s)",
    )  # fmt: skip
    for name, text in WAITS.items():
        value = getattr(default, name)
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{text} (%(default)s)")
    parser.add_argument(
        "--probe_s", type=float, default=20.0, help="look so often whether the hosts still answer (%(default)s)"
    )
    parser.add_argument("script", nargs=argparse.REMAINDER, help="launch/pretrain.py or launch/finetune.py, with flags")
    return parser


def _not_for_slurm(hostfile: str | None) -> None:
    if int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1 and not hostfile:
        raise ConfigError(
            "this SLURM job has several nodes: submit launch/slurm/pretrain.sbatch, which SLURM starts again, or "
            "give --hostfile"
        )


def _accelerators() -> int:
    import torch

    return torch.cuda.device_count() or 1
