"""Other programs read the shards: plain tar, webdataset, Hugging Face datasets. All see what the manifest points at."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from aar_dist.shards.build import build
from aar_dist.shards.checks import MISSING


@pytest.fixture(scope="module", params=["as_recorded", "packed"])
def shards(request, recordings, options, shard_set, tmp_path_factory) -> Path:
    """A set with float32 and int16 sensors, and the same packed."""
    if request.param == "as_recorded":
        return shard_set
    packed = replace(options, pack={"acc": "int16", "gyr": "float16"})
    return build(recordings, tmp_path_factory.mktemp("packed") / "set", packed, workers=1).folder


@pytest.fixture(scope="module")
def expected(shards) -> dict[tuple[str, str, str], np.ndarray]:
    """(shard, key, sensor) -> the samples in the unit of the kind, by the manifest alone."""
    found = {}
    for row in pq.read_table(shards / "manifest.parquet").to_pylist():
        shape = (row["n_samples"], row["axes"].count(",") + 1)
        stored = np.memmap(shards / row["shard"], row["dtype"], "r", row["offset"], shape)
        found[row["shard"], row["key"], row["sensor"]] = stored * np.array(row["scale"]) + row["zero"]
    return found


def check(seen, expected) -> None:
    """``seen``: (shard, key, members by name), as a program that knows nothing but the samples and their JSON."""
    done = set()
    for shard, key, members in seen:
        about = members["json"]
        for sensor, of in about["sensors"].items():
            values = np.asarray(members[f"{sensor}.npy"])
            assert not (of["packing"] == "int16" and (values == MISSING).any()), "these recordings have no gaps"
            np.testing.assert_array_equal(values * np.array(of["scale"]) + of["zero"], expected[shard, key, sensor])
            done.add((shard, key, sensor))
        assert len(members["label.npy"]) == len(values)
    assert done == set(expected)


def test_plain_tar(shards, expected, tmp_path):
    def unpacked():
        for path in sorted(shards.glob("*.tar")):
            folder = tmp_path / path.stem
            folder.mkdir()
            subprocess.run(["tar", "xf", path, "-C", folder], check=True)
            for about in folder.glob("*.json"):
                arrays = {p.name.removeprefix(f"{about.stem}."): np.load(p) for p in folder.glob(f"{about.stem}.*.npy")}
                yield path.name, about.stem, {"json": json.loads(about.read_text()), **arrays}

    check(unpacked(), expected)


def test_webdataset(shards, expected):
    wds.utils.enforce_security = True
    check(
        (
            (path.name, sample["__key__"], sample)
            for path in sorted(shards.glob("*.tar"))
            for sample in wds.WebDataset(str(path), shardshuffle=False).decode()
        ),
        expected,
    )


def test_hugging_face_datasets(shards, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    def samples():
        for name in sorted({path.name.rsplit("-", 2)[0] for path in shards.glob("*.tar")}):
            files = sorted(map(str, shards.glob(f"{name}-*.tar")))
            for sample in datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True):
                yield Path(sample["__url__"]).name, sample["__key__"], sample

    check(samples(), expected)
