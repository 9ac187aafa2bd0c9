"""An error of one rank ends them all, with its line, printed once; what all have is told once."""

from pathlib import Path

import pytest
from launching import ends, group

SCRIPT = Path(__file__).with_name("alarm_script.py")


def launch(what: str, world: int) -> list[tuple[int, str]]:
    """Exit code and error output of each rank."""
    return [(code, told) for code, _, told in ends(group(SCRIPT, world, what))]


@pytest.mark.parametrize(
    ("what", "world", "line"),
    [
        ("rank 1 fails", 2, "error: rank 1: this key is wrong\n"),
        ("rank 1 computes while rank 0 fails", 3, "error: this key is wrong\n"),
        ("rank 1 has a full disk", 2, "error: rank 1: /some/file: No space left on device\n"),
        ("before the group rank 1 fails", 2, "error: rank 1: this key is wrong\n"),
    ],
)
def test_an_error_of_one_rank_is_the_error_of_all_and_printed_once(what, world, line):
    assert launch(what, world) == [(2, line), *[(2, "")] * (world - 1)]


def test_an_error_that_all_have_is_told_by_rank_0_alone():
    assert launch("all fail", 3) == [(2, "error: this key is wrong\n"), (2, ""), (2, "")]


def test_a_bug_of_one_rank_ends_the_others_and_keeps_its_traceback():
    (code, said), (own_code, own) = launch("rank 1 has a bug", 2)
    assert said == "error: rank 1 crashed: ZeroDivisionError: division by zero (its traceback tells where)\n"
    assert "Traceback" in own
    assert own.endswith("ZeroDivisionError: division by zero\n")
    assert (code, own_code) == (1, 1)


def test_without_an_error_nothing_is_said():
    assert launch("nothing", 2) == [(0, "")] * 2
