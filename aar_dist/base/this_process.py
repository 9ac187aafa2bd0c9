"""Which process did this, and is it still there? For marks that a killed one leaves behind.

this_process() -> JSON beside the work … has_ended(JSON) -> True, False, or None of a process of another machine
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """A process of a machine, in one of its sets of process numbers (a container has its own)."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    numbers = Path("/proc/self/ns/pid")
    return {
        "machine": boot.read_text().strip() if boot.exists() else socket.gethostname(),
        "processes": os.readlink(numbers) if numbers.exists() else "",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def has_ended(told: Mapping[str, Any]) -> bool | None:
    """Whether the process that said :func:`this_process` is gone; None where that cannot be seen from here."""
    here = this_process()
    if any(told.get(key) != here[key] for key in ("machine", "processes")):
        return None
    return _started(told.get("pid")) != told.get("started")


def _started(pid: object) -> str | None:
    """When a process of this machine started; None if there is none of this number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
