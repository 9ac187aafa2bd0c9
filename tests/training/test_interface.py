"""Gloo is told the interface that leads to rank 0."""

import os

import pytest

from aar_dist.training.meeting import interface
from aar_dist.training.ranks import Ranks

ADDRESSES = {"lo": ["127.0.0.1"], "docker0": ["172.17.0.1"], "eth0": ["10.0.0.5", "fe80::1"], "ib0": ["192.168.3.5"]}
UP = ["docker0", "eth0", "ib0"]


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ("192.168.3.5", "ib0"),
        ("10.0.0.5", "eth0"),
        ("127.0.1.1", "eth0"),  # rank 0's own name on Debian
        ("", "eth0"),  # a name that nobody knows
    ],
)
def test_the_way_to_rank_0(monkeypatch, own, found):
    monkeypatch.setattr(interface, "own_address", lambda host: own)
    assert interface.interface_to("n1", ADDRESSES, UP) == found


def test_no_network_is_no_interface(monkeypatch):
    monkeypatch.setattr(interface, "own_address", lambda host: "127.0.0.1")
    assert interface.interface_to("n1", ADDRESSES, []) is None


def test_this_machine_is_read():
    assert interface.own_address("127.0.0.1") == "127.0.0.1"
    assert interface.own_address("no-such-host.invalid") == ""
    assert "127.0.0.1" in interface.addresses()["lo"]
    assert "lo" not in interface.up()


def test_one_host_and_a_users_choice_are_left_alone(monkeypatch):
    monkeypatch.delenv(interface.GLOO, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.5")
    monkeypatch.setattr(interface, "interface_to", lambda *_: "ib0")
    interface.choose_interface(Ranks(0, 2, 0, 2))
    assert interface.GLOO not in os.environ
    monkeypatch.setenv(interface.GLOO, "eth7")
    interface.choose_interface(Ranks(0, 2, 0, 1))
    assert os.environ[interface.GLOO] == "eth7"
    monkeypatch.delenv(interface.GLOO)
    interface.choose_interface(Ranks(0, 2, 0, 1))
    assert os.environ.pop(interface.GLOO) == "ib0"
