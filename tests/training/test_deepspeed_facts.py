"""What we lean on in DeepSpeed, on two ranks: an upgrade that changes it must say so here."""

from pathlib import Path

import pytest
from deepspeed.runtime.constants import GRADIENT_CLIPPING_DEFAULT
from launching import both_ranks

from aar_dist.training.config import DeepSpeedConfig, TrainConfig
from aar_dist.training.options import ds_json
from aar_dist.training.ranks import Ranks

CLIPPED = ("0:fp32:0.1:none", "1:fp32:0.1:none", "2:fp32:0.1:optimizer", "3:fp32:0.1:all")
TRIALS = ("0:fp32:0:none", "0:autocast:0:none", "0:bf16:0:none", "1:fp32:0:none", "2:bf16:0:none", "3:fp32:0:none",
          "3:bf16:0:none", "1:bf16:0:optimizer", "3:bf16:0:all", *CLIPPED)  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What both ranks report for each trial."""
    out = tmp_path_factory.mktemp("engine")
    return both_ranks(Path(__file__).with_name("engine_script.py"), out, *TRIALS)


@pytest.mark.launch
@pytest.mark.parametrize("trial", TRIALS)
class TestEngine:
    def test_weights_loaded_before_initialize_are_the_engines(self, said, trial):
        assert [rank[trial]["starts_from_given"] for rank in said] == [True, True]

    def test_a_loss_or_gradients_that_are_not_finite_change_nothing(self, said, trial):
        for rank in said:
            steps = rank[trial]["steps"]
            assert [step["applied"] for step in steps] == [True, True, False, True, False]
            assert [step["moved"] for step in steps] == [True, True, False, True, False]
            assert all(step["finite"] for step in steps)

    def test_consolidated_weights_are_fp32(self, said, trial):
        assert all(step["fp32"] for rank in said for step in rank[trial]["steps"])

    def test_gradient_norm_is_the_same_on_all_ranks(self, said, trial):
        norms = [[step["norm"] for step in rank[trial]["steps"] if step["applied"]] for rank in said]
        assert norms[0] == norms[1]
        assert min(norms[0]) > 0

    def test_no_latest_is_written_and_a_tag_loads_itself(self, said, trial):
        assert [rank[trial]["latest"] for rank in said] == [False, False]
        assert [rank[trial]["loaded"] for rank in said] == ["after4", "after4"]

    def test_reconstruction_works_on_shares(self, said, trial):
        assert [rank[trial]["reconstructs"] for rank in said] == [[2, 50, 3]] * 2


@pytest.mark.launch
def test_stages_and_precisions_agree_on_the_gradient(said):
    norms = [said[0][trial]["steps"][0]["norm"] for trial in TRIALS]
    assert norms == pytest.approx([norms[0]] * len(norms), rel=0.02)


@pytest.mark.launch
def test_stages_agree_on_a_clipped_gradient(said):
    plain, *others = [said[0][trial]["steps"] for trial in CLIPPED]
    assert min(step["norm"] for step in plain if step["applied"]) > 0.2  # so that there is something to clip
    assert plain[0]["distance"] < 0.1 * 1e-2 * 1.01
    for other in others:
        assert [step["distance"] for step in plain] == pytest.approx([step["distance"] for step in other], rel=1e-3)


@pytest.mark.launch
def test_running_statistics_are_averaged(said):
    one, other = [rank["statistics"] for rank in said]
    assert len(one["own"]) >= 2
    assert all(a != b for a, b in zip(one["own"], other["own"], strict=True))
    assert one["all"] == other["all"]
    assert one["all"] == pytest.approx([(a + b) / 2 for a, b in zip(one["own"], other["own"], strict=True)], rel=1e-4)


@pytest.mark.launch
def test_running_statistics_forget_a_step_that_was_left_out(said):
    for rank in said:
        told = rank["statistics"]
        assert told["applied"] == [True, False]
        assert told["left_out"] == told["all"] != told["broken"]


def test_deepspeed_would_clip_if_nothing_were_said():
    assert GRADIENT_CLIPPING_DEFAULT == 1.0
    options = ds_json(DeepSpeedConfig(), TrainConfig(), Ranks(0, 2, 0, 2), bf16=False, n_parameters=10)
    assert options["gradient_clipping"] == 0.0


def test_accumulation_is_said_explicitly():
    train = TrainConfig(batch_size=64, micro_batch_size=8)
    options = ds_json(DeepSpeedConfig(zero_stage=2), train, Ranks(0, 2, 0, 2), bf16=True, n_parameters=10)
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [options[name] for name in sizes] == [64, 8, 4]
    assert options["zero_optimization"]["stage"] == 2
    assert options["bf16"] == {"enabled": True}
