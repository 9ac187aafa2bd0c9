"""Who speaks of a rank that has died."""

import os
from contextlib import contextmanager

import pytest

from aar_dist.base.errors import PassingError
from aar_dist.training import group
from aar_dist.training.ranks import Ranks


class Left(Exception):
    """In place of the end of the process."""


@pytest.mark.parametrize(("rank", "gone", "speaks"), [(1, True, True), (1, False, False), (2, True, False)])
def test_a_killed_rank_0_is_told_by_rank_1_alone(tmp_path, monkeypatch, capsys, rank, gone, speaks):
    class Met:
        def look(self) -> None: ...

        def main_is_gone(self) -> bool:
            return gone

    @contextmanager
    def attend():
        yield Met()

    def leave(code: int) -> None:
        assert code == group.LOST_PEER_EXIT
        raise Left

    monkeypatch.setattr(group, "attend", attend)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Left), group.lost_peer(Ranks(rank, 3, rank, 3), tmp_path):
        raise RuntimeError("Connection closed by peer [10.0.0.1]:7093")
    assert ("rank 0 is gone" in capsys.readouterr().err) == speaks


def test_rank_0_tells_of_every_other(tmp_path):
    with pytest.raises(PassingError, match="another rank is gone"), group.lost_peer(Ranks(0, 1, 0, 1), tmp_path):
        raise RuntimeError("Broken pipe")
