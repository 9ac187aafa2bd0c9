"""Which parameters move, at each ZeRO stage, and from where: DeepSpeed's silent failures do not happen."""

from pathlib import Path

import pytest
from finetune_toys import publish_backbone
from launching import both_ranks

pytestmark = pytest.mark.launch

TRIALS = ("0:fp32", "1:fp32", "2:fp32", "3:fp32", "2:bf16")
LAST_LAYER = "backbone.layers.1."
HEAD = {"head.linear.weight", "head.linear.bias"}


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> list[dict]:
    """What both ranks report."""
    root = tmp_path_factory.mktemp("freezing")
    source = publish_backbone(root / "store").path
    return both_ranks(Path(__file__).with_name("finetune_script.py"), root, source, *TRIALS)


@pytest.mark.parametrize("name", TRIALS)
def test_both_ranks_agree_and_start_from_the_published_weights(said, name):
    assert said[0][name] == said[1][name]
    for way, told in said[0][name].items():
        assert told["same_as_published"], way
        assert told["comes_back"], way
        assert told["fp32"], way
        assert len(told["parameters"]) == 30, "frozen parameters are exported as well"


@pytest.mark.parametrize("name", TRIALS)
def test_what_moves(said, name):
    told = said[0][name]
    everything = set(told["full"]["parameters"])
    assert set(told["head"]["moved"]) == HEAD
    assert set(told["unlocked_1"]["moved"]) == HEAD | {p for p in everything if p.startswith(LAST_LAYER)}
    assert set(told["unlocked_all"]["moved"]) == everything - {"backbone.norm.weight", "backbone.norm.bias"}
    assert set(told["full"]["moved"]) == everything
