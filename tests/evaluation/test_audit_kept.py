"""The audit reads the samples once: a restart takes what was found, another set is audited again."""

import json
from pathlib import Path

import h5py
import pytest
from finetune_toys import folds_settings, make_shards
from launching import flags

from aar_dist.evaluation import tracks
from aar_dist.evaluation.audit_kept import audited_shards
from aar_dist.evaluation.folds import make_folds
from aar_dist.evaluation.study import open_study
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import open_source


@pytest.fixture
def reads(monkeypatch) -> list[object]:
    """Every time that the audit reads samples or opens a shard."""
    done: list[object] = []

    def counting(of):
        def counted(*args, **more):
            done.append(args)
            return of(*args, **more)

        return counted

    monkeypatch.setattr(tracks, "_read", counting(tracks._read))
    monkeypatch.setattr(tracks, "descriptions", counting(tracks.descriptions))
    return done


def test_a_restart_reads_nothing_and_another_set_is_read(shards, backbone, tmp_path, reads):
    said = folds_settings(shards, backbone, tmp_path / "f")
    first = open_study(flags(said))
    assert len(reads) == 6 + 2, "six recordings, two shards"
    first.write()
    reads.clear()
    assert open_study(flags(said)).folds == first.folds
    assert reads == []
    other = make_shards(tmp_path, name="toy", classes_of={f"s{i}": [2, 1, 0] for i in range(6)})
    open_study(flags(said | {"data.shards": other}))
    assert len(reads) == 6 + 2, "other recordings of the same subjects"
    reads.clear()
    fewer = {"split.folds": tmp_path / "fewer.json"}
    sides = [{"train": ["toy/s0", "toy/s1"], "validation": ["toy/s2"], "test": ["toy/s3"]}]
    Path(fewer["split.folds"]).write_text(json.dumps({"folds": sides}))
    open_study(flags(said | fewer))
    assert reads, "other subjects"
    for damage in ("", "{", "[]", '{"key": 1}'):
        (tmp_path / "f" / "audit.json").write_text(damage)
        reads.clear()
        open_study(flags(said))
        assert reads, damage


def test_what_is_kept_says_the_same_of_other_folds(tmp_path):
    folder = make_shards(tmp_path, name="toy", classes_of={"a": [0, 1, 2], "b": [0, 1, 2]})
    (recording,) = (folder.parent / "recordings/toy").glob("*_a_*")
    twin = recording.with_name(recording.name.replace("_a_", "_c_"))
    twin.write_bytes(recording.read_bytes())
    with h5py.File(twin, "r+") as file:
        file.attrs["subject"] = "c"
    folder = build(
        folder.parent / "recordings",
        tmp_path / "twins",
        BuildOptions(datasets=("toy",), longest_segment_s=2.0),
        workers=1,
    ).folder
    source = open_source(DataConfig(shards=[str(folder)], segment_duration=1.0), None)
    found = []
    for seed in range(3):
        folds = make_folds(["toy/a", "toy/b", "toy/c"], 3, seed=seed, validation_share=0)
        made, kept = audited_shards(source, folds, tmp_path, allow_leaks=True)
        kept.write(tmp_path)
        found.append(made.audit["shared"])
        assert len(made.audit["leaks"]) == 2
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 1
