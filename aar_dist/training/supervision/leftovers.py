"""What is left of a run on this host: found by the mark in its environment, asked to stop, ended.

    python -m aar_dist.training.supervision.leftovers RUN --grace 30     # SIGTERM to its ranks, then SIGKILL to all
    python -m aar_dist.training.supervision.leftovers RUN --ask          # SIGTERM to its ranks

Imports little: it is started over ssh on every host.
"""

import argparse
import contextlib
from collections.abc import Iterable

import psutil

MARK = "AAR_DIST_RUN"
"""The variable that every process of a supervised run carries, its value being the run directory."""


def marked(run: str) -> dict[psutil.Process, dict[str, str]]:
    """The processes of a run on this host, as far as we may see, with their environment."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARK) == run and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = environment
    return found


def ranks(run: str) -> list[psutil.Process]:
    """The ranks among them; not what a rank has started in its turn."""
    found = {process: environment for process, environment in marked(run).items() if "RANK" in environment}
    ids = {process.pid for process in found}
    return [process for process in found if _parent(process) not in ids]


def _parent(process: psutil.Process) -> int:
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def ask(run: str) -> int:
    """Ask all ranks to stop, which all agree on at their next step; returns how many there are."""
    found = ranks(run)
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    return len(found)


def end(run: str, grace_s: float) -> int:
    """End every process of the run. Its ranks may save before, for ``grace_s``. Returns how many had to be killed."""
    if grace_s and ask(run):
        psutil.wait_procs(ranks(run), timeout=grace_s)
    left = list(marked(run))
    kill(left)
    return len(left)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL, and wait until they are gone: what they held locked is free then."""
    processes = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def main() -> None:
    """The command: prints how many processes it asked, or killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--grace", type=float, default=0.0)
    parser.add_argument("--ask", action="store_true")
    given = parser.parse_args()
    print(ask(given.run) if given.ask else end(given.run, given.grace))


if __name__ == "__main__":
    main()
