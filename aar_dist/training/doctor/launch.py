"""Checks of the machine where a launch on many hosts is typed."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from aar_dist.base.carried import LAUNCHERS, POINTER, of_launcher, travelling
from aar_dist.base.wording import some
from aar_dist.training.doctor.finding import Finding, ok, problem, warning


def launcher_environment() -> Path | None:
    """The file of variables that DeepSpeed's launcher exports to all hosts, if there is one."""
    name = os.environ.get("DS_ENV_FILE", LAUNCHERS)
    return next((each for each in (Path(name), Path.home() / name) if each.is_file()), None)


def launch() -> Iterator[Finding]:
    """All of this file."""
    yield _pdsh()
    file = launcher_environment()
    text = file.read_text() if file else ""
    blank = [number for number, line in enumerate(text.splitlines(), start=1) if "=" not in line]
    if file and blank:
        yield problem(
            "environment", f"{file}, line {blank[0]}: no NAME=VALUE, on which the launcher crashes", "take the line out"
        )
    carried = of_launcher(text)
    left = [name for name in travelling(os.environ) if name not in carried and POINTER not in carried]
    if left:
        yield warning(
            "environment", f"only on this machine: {some(left)}", "aar-dist env lets them travel to the other hosts"
        )
    elif not blank:
        yield ok("environment", f"{file} travels" if file else "nothing is set that the other hosts need")


def _pdsh() -> Finding:
    found = shutil.which("pdsh")
    if found:
        return ok("pdsh", found)
    return problem("pdsh", "is not installed", "apt-get install pdsh, or deepspeed --no_ssh on every host")
