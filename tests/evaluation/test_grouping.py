"""Whom folds keep together: what the manifest tells, what a table tells, and what neither does."""

import numpy as np
import pytest
from finetune_toys import folds_settings, make_shards
from launching import flags

from aar_dist.base.errors import ConfigError
from aar_dist.evaluation.grouping import groups_of
from aar_dist.evaluation.study import open_study
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.source import open_source


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two data sets whose subjects are named alike; one of them moved its device."""
    root = tmp_path_factory.mktemp("places")
    acc = SensorData(values=np.ones((60, 3), "<f4"), units="g", rate_hz=10.0, axes=("x", "y", "z"))
    for dataset, subject, places in (("a", "1", ["ear"]), ("a", "2", ["leg"]), ("b", "1", ["ear", "leg"])):
        for k, place in enumerate(places):
            dataset_to_hdf5(
                root / dataset, dataset=dataset, species="cow", subject=subject, sensors={"acc": acc}, location=place,
                first_index=k,
            )  # fmt: skip
    options = BuildOptions(datasets=("a", "b"), longest_segment_s=1.0)
    folder = build(root, root / "set", options, workers=1).folder
    return open_source(DataConfig(shards=[str(folder)], segment_duration=1.0), None)


def test_what_the_manifest_tells(source):
    subjects = ["a/1", "a/2", "b/1"]
    assert groups_of(source, subjects, "subject") is None
    assert groups_of(source, subjects, "name") == {"a/1": "1", "a/2": "2", "b/1": "1"}
    assert groups_of(source, subjects, "dataset") == {"a/1": "a", "a/2": "a", "b/1": "b"}
    assert groups_of(source, subjects[:2], "location") == {"a/1": "ear", "a/2": "leg"}
    assert set(groups_of(source, subjects, "species").values()) == {"cow"}
    with pytest.raises(ConfigError, match=r"group location: b/1 was recorded with several \(ear, leg\)"):
        groups_of(source, subjects, "location")
    with pytest.raises(ConfigError, match=r"'speces' is no way of grouping, nor a \.csv file; did you mean species\?"):
        groups_of(source, subjects, "speces")


def test_what_a_table_tells(source, tmp_path):
    path = tmp_path / "farms.csv"
    path.write_text("\ufeffsubject,group,note\na/1,north,\na/2,south,\nb/1,north,x\n", encoding="utf-8")
    farms = {"a/1": "north", "a/2": "south", "b/1": "north"}
    assert groups_of(source, list(farms), str(path)) == farms
    for text, said in (
        ("animal,farm\na/1,north\n", r"expected the columns subject and group, found \['animal', 'farm'\]"),
        ("", r"expected the columns subject and group, found \[\]"),
        ("subject,group\na/1,north\na/1,south\n", "a/1 is of two groups, north and south"),
        ("subject,group\na/1,north\na/22,south\nb/1,x\n", r"no group of a/2, .*; did you mean a/22\?"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            groups_of(source, list(farms), str(path))
    with pytest.raises(ConfigError, match=r"nowhere\.csv: .*No such file.*give a CSV file"):
        groups_of(source, list(farms), "nowhere.csv")


def test_a_study_leaves_out_one_data_set_at_a_time_and_may_repeat(shards, tmp_path, backbone):
    other = make_shards(tmp_path, name="toyland", classes_of={f"t{i}": [1, 2, 0] for i in range(4)})
    said = folds_settings(shards, backbone, tmp_path / "f") | {"data.shards": f'["{shards}", "{other}"]'}
    study = open_study(flags(said | {"cross_validation.group": "dataset", "n_folds": "leave_one_out"}))
    sides = [{name.partition("/")[0] for name in fold.test} for fold in study.folds.folds]
    assert sides == [{"toy"}, {"toyland"}]
    assert all(fold.validation for fold in study.folds.folds)
    repeated = open_study(flags(said | {"cross_validation.repeats": 3, "n_folds": 2}))
    assert (len(repeated.folds), repeated.folds.repeats) == (6, 3)
    assert len({frozenset(repeated.folds.folds[k].test for k in (2 * r, 2 * r + 1)) for r in range(3)}) == 3
    assert len(repeated.jobs()) == 6 * 4
    with pytest.raises(
        ConfigError, match=r"split\.train_share is for launch/finetune\.py; give cross_validation\.frac"
    ):
        open_study(flags(said | {"split.train_share": 0.5}))
