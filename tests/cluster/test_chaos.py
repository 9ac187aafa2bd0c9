"""Five faults over one run on two hosts; ``make chaos`` does fifty, of every kind."""

import pytest
from chaos import chaos

KINDS = [
    "SIGKILL in a save",
    "a host without power",
    "SIGTERM or SIGUSR1 of a rank",
    "disk full in a save",
    "SIGKILL of a launcher",
]


@pytest.mark.launch
def test_a_run_survives_five_faults_and_nothing_differs(tmp_path, shard_set):
    report = chaos(tmp_path / "chaos", shard_set, KINDS, seed=4)
    assert report.problems == []
    assert [fault["kind"] for fault in report.faults] == KINDS
    assert report.attempts > len(KINDS)
    assert report.reader["seen"] > len(KINDS)
