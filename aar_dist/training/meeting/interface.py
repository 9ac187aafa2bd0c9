"""Through which of its network interfaces this host talks to the others.

Gloo takes the one that the host's own name stands for, and on many systems (Debian's /etc/hosts) that is the loopback:
ranks of two hosts would never find each other. So it is told the one that leads to rank 0.
"""

import os
import socket
from collections.abc import Iterable, Mapping

import psutil

from aar_dist.training.ranks import Ranks

GLOO = "GLOO_SOCKET_IFNAME"
INSIDE = ("docker", "br-", "veth", "virbr", "cni", "podman")
"""Beginnings of the names of interfaces that end on this host."""


def choose_interface(ranks: Ranks) -> None:
    """Tell Gloo, where there is more than one host and nobody else has told it."""
    if ranks.world_size > ranks.local_world_size and GLOO not in os.environ:
        name = interface_to(os.environ.get("MASTER_ADDR", ""), addresses(), up())
        if name:
            os.environ[GLOO] = name


def interface_to(host: str, addresses: Mapping[str, Iterable[str]], up: Iterable[str]) -> str | None:
    """The interface by which this host reaches another, or itself.

    Args:
        host: Address or name; rank 0's own host may know its name as the loopback alone.
        addresses: Interface -> its addresses.
        up: Interfaces in use, without the loopback.
    """
    own = own_address(host)
    for name, known in addresses.items():
        if own in known and name in up:
            return name
    return next((name for name in up if not name.startswith(INSIDE)), None)


def own_address(host: str) -> str:
    """This host's address on the way to another; nothing is sent. Empty if there is no way."""
    try:
        family, kind, _, _, there = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(there)
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def addresses() -> dict[str, list[str]]:
    """Interface -> its addresses."""
    return {name: [each.address for each in known] for name, known in psutil.net_if_addrs().items()}


def up() -> list[str]:
    """The interfaces in use but for the loopback."""
    flags = {name: each.flags.split(",") for name, each in psutil.net_if_stats().items() if each.isup}
    return [name for name, said in flags.items() if "loopback" not in said]
