"""The doctor on a host: answers questions, one JSON line each, until its input ends.

    ssh HOST python -m aar_dist.training.doctor.agent        {"do": "check", …} -> {"findings": […], …}

One process for all questions, because importing torch takes longer than all of them.
"""

import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from aar_dist.base.errors import one_line
from aar_dist.base.storage import STAGING_MARK
from aar_dist.training.doctor.finding import Finding, Wanted, problem
from aar_dist.training.meeting.agreement import sees

READY = "aar_dist doctor"
"""First word of the agent: what a login shell prints comes before it."""
PROBE_S, CONNECT_S = 0.5, 5.0
BLOCK = bytes(1 << 20)


def check(wanted: Wanted) -> list[Finding]:
    """All checks of this machine."""
    from aar_dist.training.doctor.hardware import hardware
    from aar_dist.training.doctor.services import services
    from aar_dist.training.doctor.software import software

    return list(chain(*(_whole(checks, wanted) for checks in (software, hardware, services))))


def _whole(checks: Callable[[Wanted], Iterator[Finding]], wanted: Wanted) -> Iterator[Finding]:
    """A check that fails is a finding, and no reason to end."""
    try:
        yield from checks(wanted)
    except Exception as error:
        yield problem(checks.__name__, f"{type(error).__name__}: {one_line(error)[:160]}", "this check itself failed")


def facts() -> dict[str, Any]:
    """What is compared between hosts."""
    from aar_dist.base.code import code_hash
    from aar_dist.training.meeting.facts import device_name, versions

    return {"code": code_hash(), "versions": versions(), "device": device_name(0), "address": first_address()}


def first_address() -> str:
    """The address that DeepSpeed gives the other hosts, if this is the first: the first that ``hostname -I`` names."""
    import psutil

    for known in psutil.net_if_addrs().values():
        for each in known:
            if each.family == socket.AF_INET and not each.address.startswith("127."):
                return str(each.address)
    return ""


class Listener:
    """Takes connections and counts what comes, until this process ends."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("", port))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._drain, args=(connection,), daemon=True).start()

    def _drain(self, connection: socket.socket) -> None:
        received = 0
        with connection:
            while block := connection.recv(len(BLOCK)):
                received += len(block)
            connection.sendall(str(received).encode())


def send(address: str, port: int, seconds: float = PROBE_S) -> float:
    """Bytes a second to a listener; 0 seconds to see only whether it can be reached. Raises ``OSError``."""
    with socket.create_connection((address, port), timeout=CONNECT_S) as connection:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            connection.sendall(BLOCK)
        connection.shutdown(socket.SHUT_WR)
        received = int(connection.recv(100) or 0)
        return received / max(time.monotonic() - began, 1e-9)


def there(folder: Path) -> Path:
    """The folder, or what of its path exists."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def mark(folder: Path) -> str:
    """Leave a file for the other hosts to look for; its name."""
    name = f"doctor{STAGING_MARK}{secrets.token_hex(8)}"
    (there(folder) / name).touch()
    return name


def answer(said: dict[str, Any], listeners: list[Listener]) -> dict[str, Any]:
    """The answer to one question."""
    match said.pop("do"):
        case "check":
            wanted = Wanted(**said)
            return {"findings": [asdict(each) for each in check(wanted)], **facts()}
        case "clock":
            return {"time": time.time()}
        case "listen":
            listeners.append(Listener(said["port"]))
            return {"port": listeners[-1].port}
        case "mark":
            return {"name": mark(Path(said["folder"]))}
        case "see":
            return {"seen": sees(there(Path(said["folder"])), said["name"])}
        case "unmark":
            (there(Path(said["folder"])) / said["name"]).unlink()
            return {}
        case "send":
            return {"bytes_per_s": send(**said)}
        case unknown:
            raise ValueError(f"no such question: {unknown}")


def main() -> None:
    """Answer until nobody asks."""
    listeners: list[Listener] = []
    print(READY, flush=True)
    for line in sys.stdin:
        try:
            said = answer(json.loads(line), listeners)
        except Exception as error:
            said = {"error": f"{type(error).__name__}: {one_line(error)}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
