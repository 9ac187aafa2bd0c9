"""Checks of what is installed: versions, code, compiler, DeepSpeed's helper, GPUs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from aar_dist.base.code import PACKAGE, code_hash
from aar_dist.base.errors import AarError, one_line
from aar_dist.training import environment
from aar_dist.training.doctor.finding import Finding, Wanted, ok, problem, warning
from aar_dist.training.meeting.facts import versions

WARM = "from aar_dist.training.group import compile_helper; compile_helper()"
WARM_S = 600


def software(wanted: Wanted) -> Iterator[Finding]:
    """All of this file."""
    yield _versions()
    yield _code()
    yield _device()
    if environment.on_cpu():
        yield _compiler()
        yield _helper(wanted)


def _versions() -> Finding:
    found = versions()
    said = ", ".join(f"{name} {version}" for name, version in found.items())
    missing = [name for name, version in found.items() if version == "none"]
    if missing:
        return problem("versions", said, f"pip install -c constraints.txt {' '.join(missing)}")
    return ok("versions", said)


def _code() -> Finding:
    return ok("code", f"aar_dist {code_hash()} in {PACKAGE}")


def _device() -> Finding:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        driver = _driver()
        said = f"{len(names)} x {names[0]}" if len({*names}) == 1 else ", ".join(names)
        if environment.on_cpu():
            return warning("device", f"DS_ACCELERATOR=cpu, beside {said}", "unset DS_ACCELERATOR to train on the GPU")
        return ok("device", f"{said}, driver {driver}")
    if shutil.which("nvidia-smi"):
        return problem(
            "device",
            f"a driver ({_driver()}), but torch {torch.__version__} cannot use a GPU",
            "install the torch of your CUDA version, or update the driver",
        )
    return ok("device", "no GPU; trains on the CPU")


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.splitlines()[0].strip() if done.returncode == 0 and done.stdout else "that does not answer"


def _compiler() -> Finding:
    name = os.environ.get("CXX", "c++")
    try:
        environment.require_compiler()
    except AarError as error:
        said, _, remedy = one_line(error).partition(". ")
        return problem("compiler", said, remedy)
    return ok("compiler", str(shutil.which(name)))


def _helper(wanted: Wanted) -> Finding:
    """DeepSpeed's all-reduce for CPUs is compiled at the first start, by every environment for itself."""
    folder = environment.extensions_folder()
    library = folder / environment.COMM_HELPER / f"{environment.COMM_HELPER}.so"
    took = ""
    if not library.exists() and wanted.warm:
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", WARM], capture_output=True, text=True, timeout=WARM_S)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no word"])[-1]
            return problem("op cache", f"compiling failed: {last[:160]}", f"see: {sys.executable} -c '{WARM}'")
        took = f", compiled in {time.monotonic() - began:.0f} s"
    if library.exists():
        return ok("op cache", f"{library}{took}")
    return warning(
        "op cache",
        f"{folder} is empty: the first start compiles a helper, about a minute",
        "aar-dist doctor --warm does it now",
    )
