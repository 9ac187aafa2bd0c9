"""Checks between hosts: rank 0's port from every other one, bandwidth around a ring, clocks, equal software."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aar_dist.training.doctor.finding import Finding, ok, problem, warning
from aar_dist.training.doctor.hosts import Patient, Unreachable, clock_ahead_s, on_all
from aar_dist.training.meeting.agreement import CLOCKS_APART_S
from aar_dist.training.meeting.compare import changed_keys

SLOW_BYTES_PER_S = 100e6
"""Below it the exchange of gradients of even a small model shows: a gigabit network."""


def reachable(patients: Sequence[Patient], addresses: Mapping[str, str], port: int) -> Iterator[tuple[str, Finding]]:
    """Whether every host reaches rank 0's, by the address that DeepSpeed would take."""
    first, *others = patients
    address = addresses[first.name]
    remedy = (
        f"open port {port} between the hosts; if {address} is not the address of {first.name} that the others see: "
        "deepspeed --master_addr A"
    )
    try:
        first.ask({"do": "listen", "port": port})
    except Unreachable as error:
        yield first.name, problem("rank 0", f"{address}:{port}: {error}", "give the launcher another: --master_port N")
        return
    found = on_all(lambda each: each.ask({"do": "send", "address": address, "port": port, "seconds": 0}), others)
    for patient, said in zip(others, found, strict=True):
        if isinstance(said, Unreachable):
            yield patient.name, problem("rank 0", f"{address}:{port} is not reached: {said}", remedy)
        else:
            yield patient.name, ok("rank 0", f"{address}:{port} is reached")


def bandwidth(patients: Sequence[Patient], addresses: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """Each host to the next, the last to the first; half of them at a time, so that no host is in two pairs."""
    pairs = [(each, patients[(i + 1) % len(patients)]) for i, each in enumerate(patients)]
    for some in (pairs[::2], pairs[1::2]):
        found = on_all(lambda pair: _between(*pair, addresses), some)
        for (source, target), said in zip(some, found, strict=True):
            if isinstance(said, Unreachable):
                yield source.name, problem("bandwidth", f"to {target.name}: {said}", "open all ports between the hosts")
            elif said < SLOW_BYTES_PER_S:
                yield (
                    source.name,
                    warning(
                        "bandwidth", f"to {target.name}: {_rate(said)}", "is it the fast network? NCCL_SOCKET_IFNAME"
                    ),
                )
            else:
                yield source.name, ok("bandwidth", f"to {target.name}: {_rate(said)}")


def _between(source: Patient, target: Patient, addresses: Mapping[str, str]) -> float:
    port = target.ask({"do": "listen", "port": 0})["port"]
    said = source.ask({"do": "send", "address": addresses[target.name], "port": port})
    return float(said["bytes_per_s"])


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8 / 1e9:.1f} Gbit/s"


def shared(patients: Sequence[Patient], folder: str) -> Iterator[tuple[str, Finding]]:
    """Whether the run directory, or what of its path exists, is the same folder on every host."""
    first, *others = patients
    remedy = "out must be a folder that all hosts share (NFS or alike)"
    try:
        name = first.ask({"do": "mark", "folder": folder})["name"]
    except Unreachable as error:
        yield first.name, problem("shared", f"{folder}: {error}", remedy)
        return
    found = on_all(lambda each: each.ask({"do": "see", "folder": folder, "name": name}, 100)["seen"], others)
    first.ask({"do": "unmark", "folder": folder, "name": name})
    for patient, seen in zip(others, found, strict=True):
        if seen is True:
            yield patient.name, ok("shared", f"{folder} is that of {first.name}")
        else:
            yield patient.name, problem("shared", f"{folder} is not that of {first.name}", remedy)


def clocks(patients: Sequence[Patient]) -> Iterator[tuple[str, Finding]]:
    """Against the first host."""
    found = [said if not isinstance(said, Unreachable) else None for said in on_all(clock_ahead_s, patients)]
    for patient, ahead in zip(patients[1:], found[1:], strict=True):
        if ahead is None or found[0] is None:
            continue
        off = ahead - found[0]
        said = f"{off:+.2f} s against {patients[0].name}"
        if abs(off) > CLOCKS_APART_S:
            yield patient.name, warning("clock", said, "let all hosts follow a time server (chrony)")
        else:
            yield patient.name, ok("clock", said)


def alike(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
    """Code, versions, device and shard sets against the first host's."""
    first, *others = facts
    for name in others:
        different = changed_keys(_compared(facts[name]), _compared(facts[first]))
        for key, (here, there) in different.items():
            label = key.removeprefix("versions.")
            remedy = "copy the same code to every host" if key == "code" else "make the hosts alike"
            yield name, problem("alike", f"{label} {here}, {first} has {there}", remedy)
        if not different:
            yield name, ok("alike", f"code, versions, device and shards as on {first}")


def _compared(facts: Mapping[str, Any]) -> dict[str, Any]:
    shards = {f["found"].split(" is ")[0]: f["found"] for f in facts["findings"] if f["check"] == "shards"}
    return {**{key: facts[key] for key in ("code", "versions", "device")}, "shards": shards}
