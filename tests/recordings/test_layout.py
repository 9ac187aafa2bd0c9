"""What newcomers write into the YAML of a table: it is understood as it stands, or one line names file and key."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from aar_dist.base.errors import USER_ERROR_EXIT, ConfigError
from aar_dist.recordings.contract import find_recordings, read_labels
from aar_dist.recordings.convert import main
from aar_dist.recordings.layout import read_layout

PLAIN = """
dataset: herd
glob: "*.csv"
rate_hz: 10
subject: "7"
species: cow
sensors:
  acc:
    columns: [ax, ay]
    units: g
label:
  column: what
  classes: [resting, walking]
"""
ROWS = ["t,ax,ay,what", *(f"{i / 10},0.{i},1.5,{1 + i % 2}" for i in range(8))]


def described(folder: Path, *swaps: tuple[str, str], more: str = "") -> Path:
    """The plain description with texts replaced, as somebody would type it."""
    text = PLAIN
    for old, new in swaps:
        assert old in text
        text = text.replace(old, new)
    path = folder / "mine.yaml"
    path.write_text(text + more)
    return path


def converted(tmp_path: Path, yaml: Path, rows: list[str] = ROWS):
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in/one.csv").write_text("\n".join(rows))
    main(["table", str(tmp_path / "in"), str(tmp_path / "out"), "--yaml", str(yaml)])
    (folder,) = (tmp_path / "out").iterdir()
    return find_recordings(folder)


def refused(capsys, tmp_path: Path, yaml: Path, rows: list[str] = ROWS) -> str:
    with pytest.raises(SystemExit) as left:
        converted(tmp_path, yaml, rows)
    assert left.value.code == USER_ERROR_EXIT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
    return error


CLASSES = ("[resting, walking]", "[1, 2]")
UNDERSTOOD = {
    "rate as text": (CLASSES, ("rate_hz: 10", 'rate_hz: "10"')),
    "number as data set": (CLASSES, ("dataset: herd", "dataset: 2022")),
    "nothing unlabelled": (CLASSES, ("  column: what", "  unlabelled:\n  column: what")),
    "numbers in map": (("  column: what", "  map: {1: resting, 2: walking}\n  column: what"),),
    "numbers unlabelled": (("  column: what", "  map: {1: resting}\n  unlabelled: [2]\n  column: what"),),
    "one unlabelled": (("  column: what", "  map: {1: resting}\n  unlabelled: 2\n  column: what"),),
    "one column": (CLASSES, ("[ax, ay]", "ax")),
    "empty keys that need not be": (CLASSES, ("species: cow", "species: cow\nlocation:\ntimestamps: ~")),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_can_only_be_meant_one_way_is_understood(tmp_path, case):
    (recording,) = converted(tmp_path, described(tmp_path, *UNDERSTOOD[case]))
    assert recording.dataset == ("2022" if "data set" in case else "herd")
    assert (recording.sensors[0].rate_hz, recording.sensors[0].n_samples) == (10.0, 8)
    assert recording.sensors[0].axes == (("ax",) if "column" in case else ("ax", "ay"))
    assert set(read_labels(recording)) == ({-1, 0} if "unlabelled" in case and "nothing" not in case else {0, 1})


def test_texts_are_as_they_are_written(tmp_path):
    layout = read_layout(described(tmp_path, ("[resting, walking]", "[no, yes, 1.50, null_]"), ('"7"', "012")))
    assert layout.label.classes == ["no", "yes", "1.50", "null_"]
    assert layout.subject.value == "012"


REFUSED = {
    "rate with a unit": (("rate_hz: 10", "rate_hz: 25 Hz"), "rate_hz: expected a number without a unit, found '25 Hz'"),
    "rate nan": (("rate_hz: 10", "rate_hz: nan"), "rate_hz: expected a number"),
    "rate list": (("rate_hz: 10", "rate_hz: [10]"), "rate_hz: expected a number"),
    "rate empty": (("rate_hz: 10", "rate_hz:"), "rate_hz: is empty"),
    "units empty": (("units: g", "units:"), "sensors.acc.units: is empty"),
    "units list": (("units: g", "units: [g]"), "sensors.acc.units: expected a text, found ['g']"),
    "scale word": (("units: g", "units: g\n    scale: abc"), "sensors.acc.scale: expected a number"),
    "scale 0": (("units: g", "units: g\n    scale: [1, 0]"), "sensors.acc.scale: is 0"),
    "scales": (("units: g", "units: g\n    scale: [1, 2, 3]"), "sensors.acc.scale: expected one for each of 2 columns"),
    "axes": (("units: g", "units: g\n    axes: [x]"), "sensors.acc.axes: expected one for each of 2 columns"),
    "comma in an axis": (("units: g", "units: g\n    axes: ['x,1', y]"), "sensors.acc.axes: axis 'x,1'"),
    "columns empty": (("[ax, ay]", "[]"), "sensors.acc.columns: expected a list of texts, found nothing"),
    "data set with a slash": (("dataset: herd", "dataset: a/b"), "dataset: 'a/b' cannot be part of a file name"),
    "data set above": (("dataset: herd", "dataset: .."), "dataset: '..' cannot be part of a file name"),
    "glob absolute": (('"*.csv"', "/data/*.csv"), "glob: expected a pattern relative to SOURCE"),
    "glob above": (('"*.csv"', "../*.csv"), "glob: expected a pattern relative to SOURCE"),
    "glob here": (('"*.csv"', "."), "glob: expected a pattern relative to SOURCE"),
    "glob empty": (('"*.csv"', '""'), "glob: expected a text, found nothing"),
    "glob stars": (('"*.csv"', '"**.csv"'), "glob: `**` stands for whole folders"),
    "separator": (("dataset:", "separator: ;;\ndataset:"), "separator: expected a single character, found ';;'"),
    "tab": (("dataset:", "separator: \\t\ndataset:"), 'a tab is "\\t" in double quotes'),
    "decimal": (("dataset:", "decimal: ',,'\ndataset:"), "decimal: expected a single character, found ',,'"),
    "separator twice": (("dataset:", "decimal: ','\ndataset:"), "decimal: ',' is the separator too"),
    "sensor with a dot": (("  acc:", "  acc.x:"), "sensors: sensor 'acc.x' cannot be part of a file name"),
    "sensors alike": (("sensors:", "sensors:\n  Acc: {columns: ax, units: g}"), "differ in upper and lower case"),
    "sensor without a name": (("  acc:", "  ~:"), "sensors: expected a text, found nothing"),
    "class twice": (("[resting, walking]", "[a, a]"), "label.classes: expected every class once"),
    "class empty": (("[resting, walking]", "[a, ~]"), "label.classes: expected a text, found nothing"),
    "map elsewhere": (("  column:", "  map: {1: run}\n  column:"), "label.map: 'run' is none of label.classes"),
    "unlabelled class": (("  column:", "  unlabelled: walking\n  column:"), "label.unlabelled: 'walking' is one of"),
    "label as text": (("label:\n  column: what\n  classes:", "label: what\n#"), "label: expected keys and values"),
    "subject twice": (('subject: "7"', "subject: {value: 7, column: a}"), "subject: give one of"),
    "longest step": (("label:", "timestamps: {column: t, max_step_s: 0}\nlabel:"), "timestamps.max_step_s: must be"),
    "longest step word": (("label:", "timestamps: {column: t, max_step_s: 1 s}\nlabel:"), "timestamps.max_step_s: exp"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_one_line(tmp_path, capsys, case):
    swap, message = REFUSED[case]
    yaml = described(tmp_path, swap)
    error = refused(capsys, tmp_path, yaml)
    assert f"{yaml}: {message}" in error or (f"{yaml}: " in error and message in error)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"dataset: \xff\xfe")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not readable as YAML"):
        read_layout(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [(b"t,ax,ay,what,ax", "has 2 columns 'ax'"), (b"t,ax,ay,what,\xb0C", "are not UTF-8")],
)
def test_headers_that_cannot_be_used(tmp_path, capsys, header, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/odd.csv").write_bytes(header + b"\n1,2,3,1,5\n")
    error = refused(capsys, tmp_path, described(tmp_path, CLASSES))
    assert "odd.csv: " in error
    assert message in error


def clock(tmp_path: Path, unit: str) -> Path:
    return described(tmp_path, CLASSES, more=f"timestamps: {{column: t, unit: {unit}}}\n")


def stamped(*stamps: str) -> list[str]:
    return [ROWS[0], *(f"{s},{row.split(',', 1)[1]}" for s, row in zip(stamps, ROWS[1:], strict=False))]


BAD_CLOCKS = {
    "text": ("s", ["noon", "noon"], "column 't' holds 'noon', not s; key timestamps.unit"),
    "dates": ("ms", ["2025-06-01T08:00:00", "2025-06-01T08:00:01"], "not ms; key timestamps.unit"),
    "mixed": ("iso", ["2025-06-01T08:00:00Z", "2025-06-01T08:00:00.1"], "row 1 lacks a time zone"),
    "mixed later": ("iso", ["2025-06-01T08:00:00", "2025-06-01T08:00:00.1Z"], "row 1 has a time zone"),
}


@pytest.mark.parametrize("case", BAD_CLOCKS)
def test_clocks_that_cannot_be_read(tmp_path, capsys, case):
    unit, stamps, message = BAD_CLOCKS[case]
    error = refused(capsys, tmp_path, clock(tmp_path, unit), stamped(*stamps))
    assert "one.csv: column 't'" in error
    assert message in error


def test_times_with_a_zone_are_in_utc(tmp_path):
    (recording,) = converted(
        tmp_path, clock(tmp_path, "iso"), stamped(*(f"2025-06-01T08:00:00.{i}+02:00" for i in "012"))
    )
    assert recording.start_time == "2025-06-01T06:00:00+00:00"


@pytest.mark.parametrize(
    ("zone", "start"), [("Europe/Berlin", "2025-06-01T06:00:00+00:00"), (None, "2025-06-01T06:00:00")]
)
def test_times_of_parquet_keep_what_they_know(tmp_path, zone, start):
    micro = [1748757600000000 + 100_000 * i for i in range(4)]
    table = pa.table(
        {"t": pa.array(micro, pa.timestamp("us", zone)), "ax": [0.5] * 4, "ay": [1.0] * 4, "what": [1] * 4}
    )
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "in/one.parquet")
    yaml = described(tmp_path, CLASSES, ("*.csv", "*.parquet"), more="timestamps: {column: t, unit: iso}\n")
    assert [r.start_time for r in converted(tmp_path, yaml)] == [start]


def test_files_with_and_without_a_zone_are_named(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/other.csv").write_text("\n".join(stamped("2025-06-01T08:00:00Z", "2025-06-01T08:00:00.1Z")))
    rows = stamped("2025-06-01T08:00:00", "2025-06-01T08:00:00.1")
    rows[1] = rows[1].replace("0.0,", "0.9,")
    error = refused(capsys, tmp_path, clock(tmp_path, "iso"), rows)
    assert "other.csv starts at 2025-06-01T08:00:00+00:00, with a time zone, and one.csv" in error
