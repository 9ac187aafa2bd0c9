"""Where the numbers of each parameter lie: every one once, on any number of ranks."""

from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.base.errors import CheckpointError
from aar_dist.training.resharding.pieces import Piece, shares, stretches, whole
from aar_dist.training.resharding.source import OPTIMIZED, Source

sizes_of = st.lists(st.integers(1, 40), min_size=1, max_size=8).map(
    lambda n: {f"p{i}": size for i, size in enumerate(n)}
)


def covered(pieces: list[Piece]) -> dict[str, list[int]]:
    """Parameter -> its numbers, in the order of the ranks."""
    made: dict[str, list[int]] = {}
    for piece in pieces:
        made.setdefault(piece.name, []).extend(range(piece.start, piece.stop))
    return made


@given(sizes_of, st.integers(1, 9), st.integers(0, 5), st.integers(1, 4))
def test_a_line_cut_in_equal_lengths_holds_every_number_once(sizes, ranks, gap, align):
    begins = [0, *accumulate(size + gap for size in sizes.values())]
    length = -(-begins[-1] // (ranks * align)) * align
    pieces = [list(stretches(sizes, begins[:-1], length, rank, 0)) for rank in range(ranks)]
    assert covered([p for each in pieces for p in each]) == {name: list(range(size)) for name, size in sizes.items()}
    for rank, each in enumerate(pieces):
        for piece in each:
            begin = begins[list(sizes).index(piece.name)]
            assert rank * length + piece.offset == begin + piece.start
            assert piece.offset + piece.count <= length


@given(sizes_of, st.integers(1, 9))
def test_equal_shares_hold_every_number_once(sizes, ranks):
    pieces = [list(shares(sizes, ranks, rank, 0)) for rank in range(ranks)]
    assert covered([p for each in pieces for p in each]) == {name: list(range(size)) for name, size in sizes.items()}
    room = sum(-(-size // ranks) for size in sizes.values())
    for each in pieces:
        ends = [0, *(piece.offset + piece.count for piece in each)]
        assert all(piece.offset >= end for piece, end in zip(each, ends, strict=False))
        assert ends[-1] <= room


def test_a_tensor_for_each():
    assert whole({"a": 2, "b": 3}) == [Piece("a", 0, 2, 0, 0), Piece("b", 0, 3, 1, 0)]


def write(folder, *, ranks=2, lost=0):
    """Files as DeepSpeed's at ZeRO 2, of 7 numbers in two parameters and one buffer."""
    folder.mkdir(parents=True)
    shapes = {"a": torch.Size([2, 2]), "b": torch.Size([3])}
    module = {"a": torch.zeros(2, 2), "b": torch.zeros(3), "c": torch.tensor([5.0]), "twin": torch.zeros(3)}
    model = {"module": module, "param_shapes": [shapes], "buffer_names": ["c"], "shared_params": {"twin": "b"}}
    torch.save(model | {OPTIMIZED: ["a", "b"]}, folder / "mp_rank_00_model_states.pt")
    line = torch.arange(8.0)
    for rank in range(ranks):
        part = line[4 * rank : 4 * rank + 4]
        adam = {"step": torch.tensor(9.0), "exp_avg": part + 10, "exp_avg_sq": part + 100}
        state = {
            "zero_stage": 2,
            "single_partition_of_fp32_groups": [part[: 4 - rank - lost].clone()],
            "group_paddings": [rank + lost],
            "param_alignment_paddings": [[0, 0]],
            "base_optimizer_state": {"state": {0: adam}, "param_groups": []},
        }
        torch.save({"optimizer_state_dict": state}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def test_a_source_gives_any_stretch(tmp_path):
    write(tmp_path / "step")
    source = Source(tmp_path / "step")
    assert source.step == 9
    assert torch.equal(source.weight("b"), torch.tensor([4.0, 5, 6]))
    assert source.read("exp_avg", Piece("b", 1, 2, 0, 0)).tolist() == [15, 16]
    assert source.read("exp_avg_sq", Piece("a", 0, 4, 0, 0)).tolist() == [100, 101, 102, 103]
    weights = source.weights()
    assert {name: value.tolist() for name, value in weights.items()} == {
        "a": [[0, 1], [2, 3]], "b": [4, 5, 6], "twin": [4, 5, 6], "c": [5]
    }  # fmt: skip


@pytest.mark.parametrize("harm", ["lose a rank", "cut short", "lose the model", "not pickled", "another kind"])
def test_what_is_not_understood_is_one_line(tmp_path, harm):
    folder = tmp_path / "step"
    write(folder, ranks=1 if harm == "lose a rank" else 2, lost=harm == "cut short")
    model = folder / "mp_rank_00_model_states.pt"
    if harm == "lose the model":
        model.unlink()
    elif harm == "not pickled":
        model.write_bytes(b"nothing")
    elif harm == "another kind":
        state = {"zero_stage": 1, "clip_grad": 0.0}
        torch.save({"optimizer_state_dict": state}, folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt")
    with pytest.raises(CheckpointError, match=str(folder)) as raised:
        Source(folder)
    assert "\n" not in str(raised.value)
