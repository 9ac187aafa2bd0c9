"""Classes under other names: windows are cut after it, whatever the data sets call things."""

from pathlib import Path

import numpy as np
import pytest

from aar_dist.base.errors import ConfigError
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build
from aar_dist.stream.config import DataConfig
from aar_dist.stream.label_map import LabelMap
from aar_dist.stream.windows import WindowConfig, WindowTable, open_windows

FINE = ("WALKING", "UPSTAIRS", "SITTING", "LAYING")
NESTED = {"flat": {"Walking": ["WALKING", "UPSTAIRS"], "Resting": ["SITTING"]}, "wlk": {"Walking": ["WLK"]}}


def write(root: Path, dataset: str, classes: tuple[str, ...]) -> None:
    """Runs of 2.5 s of each class in turn, at 10 Hz."""
    label = np.repeat(np.arange(len(classes)), 25)
    acc = SensorData(values=np.ones((len(label), 1), "<f4"), rate_hz=10.0, units="g", axes=("x",))
    for subject in "ab":
        dataset_to_hdf5(
            root / dataset, dataset=dataset, species="man", subject=subject, sensors={"acc": acc},
            label=label.astype(np.int16), classes=classes,
        )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> DataConfig:
    root = tmp_path_factory.mktemp("fine")
    write(root, "flat", FINE)
    write(root, "wlk", ("WLK", "SITTING"))
    build(root, root / "set", BuildOptions(datasets=("flat", "wlk"), longest_segment_s=1.0), workers=1)
    return DataConfig(shards=[str(root / "set")], segment_duration=1.0)


def said(table: WindowTable, subject: str) -> list[str]:
    """The class of each window of a subject, by its second."""
    mine = table.subject == subject
    made = ["-"] * 10
    for start, label in zip(table.start_s[mine], table.label[mine], strict=True):
        made[round(start)] = table.classes[label]
    return made


def test_a_window_of_two_fine_classes_that_are_one_is_whole(data):
    fine = said(open_windows(data, WindowConfig())[1], "flat/a")
    assert fine == ["WALKING"] * 2 + ["-"] + ["UPSTAIRS"] * 2 + ["SITTING"] * 2 + ["-"] + ["LAYING"] * 2
    coarse = WindowConfig(map={"Walking": ["WALKING", "UPSTAIRS", "WLK"], "Resting": ["SITTING"]})
    table = open_windows(data, coarse)[1]
    assert table.classes == ("Resting", "Walking")
    assert said(table, "flat/a") == ["Walking"] * 5 + ["Resting"] * 2 + ["-"] * 3
    assert said(table, "wlk/b") == ["Walking"] * 2 + ["-"] + ["Resting"] * 2 + ["-"] * 5


def test_each_data_set_may_have_its_own_names(data):
    nested = open_windows(data, WindowConfig(map=NESTED))[1]
    flat = {"Walking": ["flat/WALKING", "flat/UPSTAIRS", "wlk/WLK"], "Resting": "flat/SITTING"}
    keyed = open_windows(data, WindowConfig(map=flat))[1]
    assert said(nested, "flat/a") == said(keyed, "flat/a") == ["Walking"] * 5 + ["Resting"] * 2 + ["-"] * 3
    assert said(nested, "wlk/a") == said(keyed, "wlk/a") == ["Walking"] * 2 + ["-"] * 8, "SITTING of the other alone"


def test_what_is_not_listed_is_dropped_or_kept(data):
    kept = open_windows(data, WindowConfig(map=NESTED, unlisted="keep"))[1]
    assert kept.classes == ("LAYING", "Resting", "SITTING", "Walking")
    assert said(kept, "flat/a")[-3:] == ["-", "LAYING", "LAYING"]
    assert said(kept, "wlk/a") == ["Walking"] * 2 + ["-"] + ["SITTING"] * 2 + ["-"] * 5
    chosen = open_windows(data, WindowConfig(map=NESTED, unlisted="keep", classes=["Walking", "LAYING"]))[1]
    assert chosen.classes == ("Walking", "LAYING")


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"W": ["WALKNG"]}, r"no label 'WALKNG' in the shards; did you mean WALKING\?"),
        ({"flat": {"W": ["WLK"]}}, r"no label 'flat/WLK' in the shards; did you mean wlk/WLK\?"),
        ({"W": ["flt/WALKING"]}, r"no label 'flt/WALKING' .* did you mean flat/WALKING\?"),
        ({"W": ["WALKING"], "R": ["WALKING"]}, "WALKING is to be W and R; name it once"),
        ({"W": []}, r"W is \[\]; expected a list of classes"),
        ({"flat": {"W": {"x": ["WALKING"]}}}, r"flat/W is .*; expected a list of classes"),
    ],
)
def test_a_map_that_cannot_be_is_one_line(data, of, message):
    with pytest.raises(ConfigError, match=rf"^windows\.map: {message}") as caught:
        open_windows(data, WindowConfig(map=of))
    assert "\n" not in str(caught.value)


def test_targets_may_stand_beside_the_classes_that_a_map_names():
    """windows.datasets chooses between them; targets alone have no classes to be named."""
    target = {"dataset": "troika", "class": None, "value": 71.0}
    renaming = LabelMap.of({"W": ["WALKING"]}, "drop")
    renaming.check([{"dataset": "flat", "class": "WALKING"}, target])
    with pytest.raises(ConfigError, match="names classes, but the labels are targets"):
        renaming.check([target])


def test_classes_are_chosen_from_the_new_names(data):
    with pytest.raises(ConfigError, match=r"no label 'WALKING' .*\['Resting', 'Walking'\], as windows.map names them"):
        open_windows(data, WindowConfig(map=NESTED, classes=["WALKING"]))


def test_labels_of_one_recording_in_two_sets_are_refused(data, tmp_path):
    """Other subjects of the same names would lend each other their labels."""
    write(tmp_path, "flat", ("SITTING", "LAYING"))
    build(tmp_path, tmp_path / "set", BuildOptions(datasets=("flat",), longest_segment_s=1.0), workers=1)
    both = DataConfig(shards=[*data.shards, str(tmp_path / "set")], segment_duration=1.0)
    with pytest.raises(ConfigError, match=r"recording flat/man_a_ds_0 has labels in .*fine.* and in .*; if it is one"):
        open_windows(both, WindowConfig())
