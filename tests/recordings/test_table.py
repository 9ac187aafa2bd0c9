"""Tables described by a YAML: the example files, MotionSense, and what the YAML is told when it is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from aar_dist.base.errors import ConfigError, RecordingError
from aar_dist.recordings.contract import find_recordings, read_labels, read_samples
from aar_dist.recordings.convert import CONVERTERS, convert
from aar_dist.recordings.converter import Options
from aar_dist.recordings.layout import read_layout

CONFIGS = Path(__file__).parents[2] / "configs/convert"


def collar_csv(path: Path, *, labels=("grazing", "grasing", "", "unknown"), pause_s=600) -> Path:
    """Two animals of 100 rows, the second with a pause after its 60th."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\ufefftime;animal;ax;ay;az;behaviour"]
    for i in range(200):
        ms = 40 * (i % 100) + (1000 * pause_s if i >= 160 else 0)
        stamp = np.datetime64("2025-06-01T08:00:00.000") + np.timedelta64(ms, "ms")
        ax = str(i / 1000).replace(".", ",")
        lines.append(f"{stamp};{12 + i // 100};{ax};0,5;-1,25;{labels[i % 4]}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(source: Path, out: Path, description: Path, **kwargs):
    return convert(CONVERTERS["table"], out, Options(source=source, yaml=description), **kwargs)


def changed(tmp_path: Path, **changes) -> Path:
    """The example YAML with keys replaced; ``a__b`` is key b of section a, None removes a key."""
    content = yaml.safe_load((CONFIGS / "collar.yaml").read_text())
    for name, value in changes.items():
        *sections, key = name.split("__")
        section = content
        for s in sections:
            section = section[s]
        section.pop(key, None)
        if value is not None:
            section[key] = value
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_example(tmp_path):
    collar_csv(tmp_path / "in/all.csv")
    folder, result = run(tmp_path / "in", tmp_path / "out", CONFIGS / "collar.yaml")
    recordings = find_recordings(folder)
    assert [r.recording for r in recordings] == ["cow_12_ds_0", "cow_13_ds_0", "cow_13_ds_1"]
    assert [r.sensors[0].n_samples for r in recordings] == [100, 60, 40]
    assert recordings[2].start_time == "2025-06-01T08:10:02.400000"
    acc = np.concatenate([read_samples(r, "acc") for r in recordings])
    np.testing.assert_allclose(acc, np.column_stack([np.arange(200) / 1000, np.full(200, 0.5), np.full(200, -1.25)]))
    assert acc.dtype == np.float32
    label = np.concatenate([read_labels(r) for r in recordings])
    np.testing.assert_array_equal(label, [2, 2, -1, -1] * 50)
    assert recordings[0].label.classes == ("resting", "ruminating", "grazing", "walking")
    assert (recordings[0].location, recordings[0].source) == ("neck", "all.csv")
    assert result.summary() == "3 recordings of 2 subjects, 0.00 h"


def test_parquet_counts_a_target_and_no_timestamps(tmp_path):
    counts = np.arange(50, dtype=np.int64) - 25
    table = pa.table({"x": counts, "y": counts * 2, "hr": np.linspace(60, 90, 50), "id": ["b7"] * 50})
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "in/one.parquet")
    description = changed(
        tmp_path,
        glob="*.parquet",
        subject={"column": "id"},
        sensors={"acc": {"columns": ["x", "y"], "units": "counts", "scale": [0.001, 0.002]}},
        label={"column": "hr"},
        timestamps=None,
    )
    (recording,) = find_recordings(run(tmp_path / "in", tmp_path / "out", description)[0])
    assert recording.sensors[0].dtype == "<i2"
    assert recording.sensors[0].scale == (0.001, 0.002)
    assert recording.sensors[0].axes == ("x", "y")
    assert recording.label.classes is None
    np.testing.assert_allclose(read_labels(recording), np.linspace(60, 90, 50), rtol=1e-6)
    assert recording.subject == "b7"


BAD_YAML = {
    "misspelt key": ({"seperator": ","}, "seperator: no such key; did you mean separator?"),
    "misspelt sensor key": (
        {"sensors__acc__unit": "g"},
        "sensors.acc.unit: no such key; did you mean sensors.acc.units?",
    ),
    "missing rate": ({"rate_hz": None}, "rate_hz: is missing"),
    "missing units": ({"sensors__acc__units": None}, "sensors.acc.units: is missing"),
    "rate 0": ({"rate_hz": 0}, "rate_hz: must be positive, got 0"),
    "no sensors": ({"sensors": {}}, "sensors: name at least one"),
    "sensors a list": ({"sensors": ["acc"]}, "sensors: expected"),
    "unknown group": ({"subject": {"path": "cow"}, "path": "(?P<animal>.*)"}, "subject.path: 'cow' is no group"),
    "bad expression": ({"path": "(?P<animal"}, "path: not a regular expression: missing"),
    "time unit": ({"timestamps__unit": "hours"}, "timestamps.unit: 'hours' is none of"),
    "label twice": ({"label__path": "x", "path": "(?P<x>.*)"}, "either `column` or `path`"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_bad_descriptions(tmp_path, case):
    changes, message = BAD_YAML[case]
    with pytest.raises(ConfigError) as caught:
        read_layout(changed(tmp_path, **changes))
    assert "changed.yaml: " in str(caught.value)
    assert message in str(caught.value)


BAD_DATA = {
    "no file": ({"glob": "*.tsv"}, {}, "no file matches the glob '*.tsv'"),
    "column": ({"sensors__acc__columns": ["ax", "ay", "az2"]}, {}, "has no column 'az2'; did you mean 'az'?"),
    "text": (
        {"sensors__acc__columns": ["ax", "behaviour"], "sensors__acc__axes": ["a", "b"]},
        {},
        "holds text such as",
    ),
    "decimal": ({"decimal": "."}, {}, "column 'ax' holds text such as"),
    "unit": ({"sensors__acc__units": "gees"}, {}, "unknown unit 'gees'"),
    "label": ({}, {"labels": ("grazing", "gracing", "", "")}, "label 'gracing' (50 samples) is none of"),
    "rate": ({"rate_hz": 100}, {}, "check the rate"),
    "time": ({"timestamps__column": "animal"}, {}, "expected ISO dates and times"),
    "path": ({"path": r"cow_(?P<n>\d+)"}, {}, "all.csv: does not match path"),
    "no subject": ({"subject": {"column": "behaviour"}}, {}, "subject is empty"),
    "bad subject": ({"subject": "a b"}, {}, "subject 'a b' cannot be part of a file name"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_leaves_nothing(tmp_path, case):
    changes, data, message = BAD_DATA[case]
    collar_csv(tmp_path / "in/all.csv", **data)
    with pytest.raises(RecordingError) as caught:
        run(tmp_path / "in", tmp_path / "out", changed(tmp_path, **changes))
    assert message in str(caught.value)
    assert "\n" not in " ".join(str(caught.value).split())
    assert list((tmp_path / "out").glob("*")) == []


def test_skip_bad_goes_on(tmp_path):
    collar_csv(tmp_path / "in/a.csv")
    collar_csv(tmp_path / "in/b.csv", labels=("?", "?", "?", "?"))
    (tmp_path / "in/c.csv").write_text("")
    with pytest.raises(RecordingError, match=r"2 of 3 files .*b.csv.*; .*c.csv"):
        run(tmp_path / "in", tmp_path / "out", CONFIGS / "collar.yaml")
    folder, result = run(tmp_path / "in", tmp_path / "out", CONFIGS / "collar.yaml", skip_bad=True)
    assert len(result.bad) == 2
    assert {r.source for r in find_recordings(folder)} == {"a.csv"}
