"""Versions are whole or absent, never overwritten, and verified when read."""

import json
import os
import socket
import subprocess
import sys
import threading

import pytest
import torch

from aar_dist.base.errors import CheckpointError
from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.store.checkpoint import load_weights
from aar_dist.store.registry import Store, resolve
from aar_dist.store.shelf import FolderShelf

CONFIG = """
data: {max_window_length: 50}
model: {class_path: aar_dist.models.transformer.AAREncoder, init_args: {d_embedding: 64, n_layers: 1, patch_size: 10}}
objective: {class_path: aar_dist.objectives.masked.MaskedReconstruction, init_args: {masking_ratio: 0.3}}
"""


def objective(d: int = 64) -> MaskedReconstruction:
    return MaskedReconstruction(AAREncoder(d_embedding=d, n_layers=1, max_window_length=50, patch_size=10))


def publish(root, name="aar", weights=None):
    made = objective().state_dict() if weights is None else weights
    return Store(root).publish(
        name, made, config=CONFIG, card="# aar\n", metrics={"val/loss": 1.0}, about={"shards": "x"}
    )


def test_a_version_rebuilds_the_module_bit_for_bit(tmp_path):
    weights = objective().state_dict()
    made = publish(tmp_path, weights=weights)
    assert (made.version, made.reference) == (1, "store://aar@1")
    module = resolve("store://aar@latest", tmp_path).objective()
    assert module.masking_ratio == 0.3
    assert not module.training
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert sorted(p.name for p in made.path.iterdir()) == [
        "card.md", "config.yaml", "manifest.json", "metrics.json", "model.safetensors"
    ]  # fmt: skip
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["shards"] == "x"
    assert manifest["code"]
    assert made.metrics() == {"val/loss": 1.0}


def test_weights_are_stored_as_fp32(tmp_path):
    made = publish(tmp_path, weights={"w": torch.ones(2, dtype=torch.bfloat16)})
    assert made.weights()["w"].dtype == torch.float32


def test_references(tmp_path):
    for _ in range(3):
        publish(tmp_path)
    assert resolve("store://aar@latest", tmp_path).version == 3
    assert resolve("store://aar@2", tmp_path).version == 2
    assert resolve(str(tmp_path / "models" / "aar" / "1")).version == 1


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("store://aar@9", "no version 9 of 'aar'; it has 1"),
        ("store://bar@latest", "no model 'bar'; it has aar"),
        ("store://aar", "expected store://name@latest"),
        ("store://../aar@1", "expected store://name@latest"),
        ("nowhere", "is no stored model"),
    ],
)
def test_what_is_not_there_is_named(tmp_path, reference, said):
    publish(tmp_path)
    with pytest.raises(CheckpointError, match=said):
        resolve(reference, tmp_path)
    with pytest.raises(CheckpointError, match="in which store"):
        resolve("store://aar@1")


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml", "card.md", "metrics.json"])
def test_a_flipped_byte_is_found(tmp_path, name):
    file = publish(tmp_path).path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        resolve("store://aar@1", tmp_path)


def test_a_lost_file_and_an_unreadable_manifest_are_found(tmp_path):
    path = publish(tmp_path).path
    (path / "card.md").unlink()
    with pytest.raises(CheckpointError, match=r"card\.md is missing"):
        resolve(str(path))
    (path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="is no stored model"):
        resolve(str(path))


def test_another_architecture_is_named(tmp_path):
    checkpoint = publish(tmp_path)
    with pytest.raises(CheckpointError, match=r"positions is \(5, 64\) there and \(5, 128\) here"):
        load_weights(objective(128), checkpoint.weights(), "it")


def test_two_writers_never_share_a_number(tmp_path):
    made = []
    writers = [threading.Thread(target=lambda: made.append(publish(tmp_path / "s").version)) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(made) == [1, 2, 3, 4, 5, 6]
    assert Store(tmp_path / "s").versions("aar") == [1, 2, 3, 4, 5, 6]


def test_a_folder_that_lists_versions_late_does_not_hold_up_a_publisher(tmp_path, monkeypatch):
    """NFS tells of another host's folder after a while."""
    for _ in range(2):
        publish(tmp_path)
    monkeypatch.setattr(FolderShelf, "numbers", lambda self, name: [])
    assert publish(tmp_path).version == 3


def test_a_failed_publication_leaves_nothing(tmp_path):
    publish(tmp_path)
    with pytest.raises(AttributeError):
        publish(tmp_path, weights={"w": "no tensor"})
    assert sorted(p.name for p in (tmp_path / "models" / "aar").iterdir()) == ["1", "newest.json"]


def test_a_version_is_found_by_what_its_manifest_says(tmp_path):
    store = Store(tmp_path)
    assert store.find("aar", {"shards": "x"}) is None
    publish(tmp_path)
    assert store.find("aar", {"shards": "x"}).version == 1
    assert store.find("aar", {"shards": "y"}) is None
    assert store.find("aar", {"shards": "x", "step": 1}) is None
    (publish(tmp_path).path / "card.md").unlink()
    assert store.find("aar", {"shards": "x"}).version == 1


def test_what_a_killed_publisher_left_is_swept_and_no_other(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "models" / "aar"
    owners = {"dead": ended.pid, "alive": os.getpid()}
    left = {who: folder / f"new.staging-{socket.gethostname()}-{pid}-1" for who, pid in owners.items()}
    left["elsewhere"] = folder / f"new.staging-not-{socket.gethostname()}-{ended.pid}-1"
    for path in left.values():
        path.mkdir(parents=True)
    publish(tmp_path)
    assert {who for who, path in left.items() if path.exists()} == {"alive", "elsewhere"}
