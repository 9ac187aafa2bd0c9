"""The launch of one attempt: a command of DeepSpeed's launcher, and the environment that every rank is to see.

deepspeed [--hostfile RUN/log/hostfile --force_multi --master_addr FIRST | --num_accelerators N] … SCRIPT ARGUMENTS
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from aar_dist.base import last_word
from aar_dist.base.carried import LAUNCHERS, PRIVATE, exports, kept, travelling, written_by_hand
from aar_dist.training.supervision.hosts import Host
from aar_dist.training.supervision.leftovers import MARK

ENV_FILE = "DS_ENV_FILE"


def command(script: Sequence[str], *, hostfile: Path | None, first: str, ranks: int, port: int) -> list[str]:
    """What is run.

    Args:
        script: The training script and its arguments.
        hostfile: The hosts and slots of this attempt; None: this machine alone.
        first: Address of the first host.
        ranks: Ranks on this machine, without a hostfile.
    """
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--master_port", str(port), "--log_level", "warning"]
    if hostfile:
        # Without --force_multi a single host that is left would be taken for this machine.
        launcher += ["--hostfile", str(hostfile), "--force_multi", "--no_ssh_check", "--master_addr", first]
    else:
        launcher += ["--num_accelerators", str(ranks)]
    return [*launcher, *script]


def marks(run: Path, said: Path) -> dict[str, str]:
    """The variables by which processes of this run are known, and leave their last word."""
    return {MARK: str(run), last_word.VARIABLE: str(said)}


def env_file(environ: Mapping[str, str], marked: Mapping[str, str], private: Path) -> str:
    """What DeepSpeed exports on every host of an attempt: the user's own .deepspeed_env, our marks, and where the ranks
    find all else that travels, which is written to ``private``. Raises ``ConfigError`` for what cannot be handed on."""
    files = [Path(environ[ENV_FILE])] if ENV_FILE in environ else [Path.home() / LAUNCHERS, Path(LAUNCHERS)]
    own: dict[str, str] = {}
    for file in files:
        own |= written_by_hand(file, file.with_name(PRIVATE))
    variables = {**kept(files[-1].with_name(PRIVATE)), **travelling(environ)}
    found = exports({name: value for name, value in variables.items() if name not in own}, private, marked)
    return "".join(f"{name}={value}\n" for name, value in (own | found).items())


def of_hosts(hosts: Sequence[Host]) -> str:
    """How hosts are shown."""
    return ", ".join(f"{host.name} x {host.slots}" for host in hosts)
