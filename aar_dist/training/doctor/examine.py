"""The whole examination: this machine, or all hosts and what is between them.

Wanted -> this_machine -> [Found]        hostfile, Wanted -> hosts -> [Found]
"""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aar_dist.training.doctor import agent, network
from aar_dist.training.doctor.finding import Finding, Wanted, ok, problem
from aar_dist.training.doctor.hosts import Patient, Unreachable, on_all
from aar_dist.training.doctor.launch import launch
from aar_dist.training.meeting.hostfile import read_hostfile

CHECK_S, WARM_S = 120.0, 700.0


@dataclass(frozen=True)
class Found:
    """A finding, and where."""

    host: str
    finding: Finding


def this_machine(wanted: Wanted) -> list[Found]:
    """Every check of this machine."""
    return [Found(platform.node(), each) for each in agent.check(wanted)]


def hosts(hostfile: str, wanted: Wanted) -> list[Found]:
    """Every check of all hosts. Raises ``ConfigError`` for a hostfile that cannot be used."""
    slots = read_hostfile(hostfile)
    found = [Found("here", each) for each in launch()]
    said = on_all(Patient, list(slots))
    patients = [each for each in said if isinstance(each, Patient)]
    try:
        found += _connections(list(slots), said)
        found += _of_patients(patients, slots, wanted)
    finally:
        for patient in patients:
            patient.close()
    return found


def _connections(names: Sequence[str], said: Sequence[Patient | Unreachable]) -> Iterator[Found]:
    for name, each in zip(names, said, strict=True):
        if isinstance(each, Patient):
            yield Found(name, ok("ssh", "answers without a password"))
        else:
            yield Found(name, problem("ssh", str(each), _remedy(str(each), name)))


def _remedy(said: str, name: str) -> str:
    if "Permission denied" in said:
        return f"ssh-copy-id {name}: a key without a password, for this user"
    if "Host key" in said:
        return f"ssh {name} once by hand, and accept its key"
    if "Name or service" in said or "Could not resolve" in said:
        return "mend the name in the hostfile, or add it to /etc/hosts"
    if "No module" in said or "No such file" in said or "not found" in said:
        return "the same environment and code must be at the same place on every host"
    return f"try: ssh {name} true"


def _of_patients(patients: Sequence[Patient], slots: dict[str, int], wanted: Wanted) -> Iterator[Found]:
    first = next(iter(slots))

    def check(patient: Patient) -> dict[str, Any]:
        asked = replace(wanted, slots=slots[patient.name], hosts=len(slots), first=patient.name == first)
        return patient.ask({"do": "check", **asked.to_dict()}, WARM_S if wanted.warm else CHECK_S)

    facts: dict[str, dict[str, Any]] = {}
    for patient, said in zip(patients, on_all(check, patients), strict=True):
        if isinstance(said, Unreachable):
            yield Found(patient.name, problem("checks", str(said), f"try: ssh {patient.name} aar-dist doctor"))
        else:
            facts[patient.name] = said
            yield from (Found(patient.name, Finding(**each)) for each in said["findings"])
    there = [each for each in patients if each.name in facts]
    if len(there) > 1:
        addresses = {name: each["address"] or name for name, each in facts.items()}
        yield from (Found(*each) for each in network.alike(facts))
        yield from (Found(*each) for each in network.clocks(there))
        if wanted.run:
            yield from (Found(*each) for each in network.shared(there, wanted.run))
        if there[0].name == first:
            yield from (Found(*each) for each in network.reachable(there, addresses, wanted.port))
        yield from (Found(*each) for each in network.bandwidth(there, addresses))
