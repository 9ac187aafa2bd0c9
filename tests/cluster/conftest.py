"""Hosts, and a SLURM on them, that last for a file of tests."""

import pytest
from hosts import two_hosts
from launching import ROOT
from slurm import slurm_on


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    shared = tmp_path_factory.getbasetemp().parent
    with two_hosts(tmp_path_factory.mktemp("two"), shared, ROOT) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def slurm(hosts):
    with slurm_on(hosts) as slurm:
        yield slurm
