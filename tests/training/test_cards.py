"""What a card tells is what the shards, the folds and the store say."""

import json
import re

import pytest
import torch
from finetune_toys import make_shards, publish_backbone

from aar_dist.recordings.convert import CONVERTERS
from aar_dist.recordings.licences import UNKNOWN, licence_of
from aar_dist.store.registry import Store
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import open_source
from aar_dist.training.cards.data import data_part
from aar_dist.training.cards.loading import loading_part
from aar_dist.training.cards.results import of_folds


@pytest.mark.parametrize(
    ("dataset", "converter"), [("hapt", "hapt"), ("but_ppg_hr", "but_ppg"), ("otariids_behaviour", "otariids")]
)
def test_a_published_set_is_known_by_its_name(dataset, converter):
    about = CONVERTERS[converter].about
    assert licence_of(dataset) == (about.licence, about.source)


@pytest.mark.parametrize("dataset", ["table", "hapt2", "my_herd", "ECG5000"])
def test_of_another_set_nothing_is_claimed(dataset):
    assert licence_of(dataset) == (UNKNOWN, "")


def test_the_data_are_told_as_the_shards_have_them(tmp_path):
    source = open_source(DataConfig(shards=[str(make_shards(tmp_path))], segment_duration=1.0), None)
    text = "\n".join(data_part(source, ["toy"], ["acc.x", "acc.y", "acc.z"]))
    assert "| toy | cow | 6 | 0.20 | acc 20 |" in text
    assert f"Channels: acc.x, acc.y, acc.z. Shard set {source.identity[:12]}." in text
    assert f"- licence of toy: {UNKNOWN}" in text


FOLDS = {
    "shards": "ab", "n_folds": 4, "methods": [
        {"name": "majority", "kind": "baseline", "seeds": [1], "scores": {"macro_f1": {"value": 0.1}}},
        {"name": "lost", "kind": "network", "seeds": [1], "scores": None},
        {"name": "tuned", "kind": "network", "seeds": [1, 2],
         "scores": {"macro_f1": {"value": 0.8123, "low": 0.7, "high": 0.9}, "accuracy": {"value": 0.9, "low": None}}},
    ],
}  # fmt: skip


def test_a_final_model_tells_what_its_folds_gave(tmp_path):
    file = tmp_path / "results.json"
    assert of_folds(file, "ab") == []
    file.write_text(json.dumps(FOLDS))
    text = "\n".join(of_folds(file, "ab"))
    assert "4 folds of the same recipe (tuned, 2 seeds, every subject tested)" in text
    assert "| macro_f1 | 0.812 | 0.700 to 0.900 |" in text
    assert "| accuracy | 0.900 | - to - |" in text
    assert of_folds(file, "of other shards") == []
    file.write_text("[1]")
    assert of_folds(file, "ab") == []


def test_what_a_card_says_of_loading_works(tmp_path):
    publish_backbone(tmp_path / "store", name="mine")
    text = "\n".join(loading_part("mine", predicts=False)).replace("STORE", str(tmp_path / "store"))
    made: dict = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], made)
    assert isinstance(made["model"].backbone, torch.nn.Module)
    assert made["checkpoint"].reference == "store://mine@1"
    assert Store(tmp_path / "store").names() == ["mine"]
