"""The command: what it prints, what it refuses, and that it never leaves half a data set."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from aar_dist.base.errors import USER_ERROR_EXIT, RecordingError
from aar_dist.recordings.contract import find_recordings
from aar_dist.recordings.convert import CONVERTERS, convert, main
from aar_dist.recordings.converter import Converter, Job, Options
from aar_dist.recordings.source import open_source


def hapt_folder(folder: Path, *, twins: bool = True) -> Path:
    """Three short experiments in HAPT's layout; the second repeats the first."""
    raw = folder / "RawData"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = rng.normal(size=(300, 3))
    for experiment, user in ((1, 1), (2, 1), (3, 2)):
        values = first if twins and experiment == 2 else first + experiment
        for sensor in ("acc", "gyro"):
            np.savetxt(raw / f"{sensor}_exp{experiment:02d}_user{user:02d}.txt", values, fmt="%.6f")
    (raw / "labels.txt").write_text("1 1 5 1 200\n2 1 4 1 200\n3 2 1 101 300\n")
    if twins:
        for sensor in ("acc", "gyro"):
            first_file = (raw / f"{sensor}_exp01_user01.txt").read_bytes()
            (raw / f"{sensor}_exp02_user01.txt").write_bytes(first_file)
    return folder


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert left.value.code == USER_ERROR_EXIT
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_converts_and_tells(tmp_path, capsys):
    main(["hapt", str(hapt_folder(tmp_path / "in")), str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert "acc_exp02_user01.txt is byte-identical to acc_exp01_user01.txt: left out" in lines[0]
    assert "200 samples" in lines[0]
    assert lines[-1] == f"{tmp_path / 'out/hapt'}: 2 recordings of 2 subjects, 0.00 h"
    names = [r.recording for r in find_recordings(tmp_path / "out/hapt")]
    assert names == ["human_01_ds_0", "human_02_ds_0"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["hapt"]


def test_keeps_duplicates_when_asked(tmp_path):
    main(["hapt", str(hapt_folder(tmp_path / "in")), str(tmp_path / "out"), "--keep_duplicates"])
    assert len(find_recordings(tmp_path / "out/hapt")) == 3


def test_a_folder_in_use_is_left_alone_unless_told(tmp_path, capsys):
    arguments = ["hapt", str(hapt_folder(tmp_path / "in")), str(tmp_path / "out")]
    main(arguments)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.hdf5")}
    assert "already holds something" in refused(capsys, *arguments)
    main([*arguments, "--overwrite"])
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.hdf5")} == before


@pytest.mark.parametrize("suffix", ["tar.xz", "tar.gz", "zip"])
def test_reads_the_archive_itself(tmp_path, suffix):
    source = hapt_folder(tmp_path / "in")
    archive = tmp_path / f"hapt.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in source.rglob("*.txt"):
                packed.write(path, path.relative_to(source))
    else:
        with tarfile.open(archive, f"w:{suffix.removeprefix('tar.')}") as packed:
            packed.add(source, ".")
    main(["hapt", str(archive), str(tmp_path / "out")])
    main(["hapt", str(source), str(tmp_path / "other")])
    files = [{p.name: p.read_bytes() for p in (tmp_path / out / "hapt").iterdir()} for out in ("out", "other")]
    assert files[0] == files[1]


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_an_archive_cannot_write_elsewhere(tmp_path, suffix):
    archive = tmp_path / f"evil.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr("../escaped.txt", "x")
    else:
        with tarfile.open(archive, "w") as packed:
            packed.addfile(tarfile.TarInfo("../escaped.txt"), io.BytesIO())
    with pytest.raises(RecordingError, match=r"evil\.\w+.*outside"), open_source(archive):
        pass
    assert list(tmp_path.parent.rglob("escaped.txt")) == []


def test_a_damaged_archive(tmp_path, capsys):
    archive = tmp_path / "hapt.tar.xz"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(hapt_folder(tmp_path / "in"), ".")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    assert "not readable as an archive" in refused(capsys, "hapt", archive, tmp_path / "out")
    archive.write_bytes(b"no archive")
    assert "not readable as an archive" in refused(capsys, "hapt", archive, tmp_path / "out")
    assert list((tmp_path / "out").glob("*")) == []


def test_all_bad_files_are_listed_and_may_be_skipped(tmp_path, capsys):
    source = hapt_folder(tmp_path / "in")
    (source / "RawData/gyro_exp01_user01.txt").unlink()
    (source / "RawData/acc_exp03_user02.txt").write_text("1 2 3\nx y z\n")
    arguments = ["hapt", source, tmp_path / "out"]
    error = refused(capsys, *arguments)
    assert "2 of 3 files" in error
    assert "gyro_exp01_user01.txt: no such file" in error
    assert "acc_exp03_user02.txt: not a table of numbers" in error
    assert list((tmp_path / "out").glob("*")) == []
    main([*map(str, arguments), "--skip_bad"])
    assert capsys.readouterr().out.count("left out: ") == 2
    assert [r.source for r in find_recordings(tmp_path / "out/hapt")] == ["acc_exp02_user01.txt"]


def test_unequal_lengths_name_the_published_folder(tmp_path, capsys):
    source = hapt_folder(tmp_path / "in")
    path = source / "RawData/gyro_exp01_user01.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:200]))
    error = refused(capsys, "hapt", source, tmp_path / "out")
    assert f"{tmp_path / 'out/hapt'}/human_01_ds_0.hdf5: acc lasts 6 s but gyr lasts 4 s" in error


WRONG = {
    "no arguments": ([], "give NAME SOURCE OUT"),
    "unknown name": (["hapd", "in", "out"], "hapd: no such converter; use one of"),
    "unknown flag": (["hapt", "in", "out", "--skipbad"], "did you mean --skip_bad?"),
    "missing source": (["hapt", "nowhere", "out"], "nowhere: no such file or folder"),
    "label": (["hapt", "nowhere", "out", "--label", "type"], "hapt offers no choice"),
    "no yaml": (["table", "nowhere", "out"], "--yaml: is missing"),
    "a rate that is published": (
        ["hapt", "in", "out", "--rate_hz", "50"],
        "--rate_hz: hapt does not need it; leave it",
    ),
    "no rate": (["ucr", "in", "out", "--rate_hz", "0"], "argument --rate_hz: '0' is no positive number"),
    "a rate in words": (["ucr", "in", "out", "--rate_hz", "abc"], "argument --rate_hz: 'abc' is no positive number"),
    "missing yaml": (["table", "nowhere", "out", "--yaml", "no.yaml"], "no.yaml: no such file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments(tmp_path, monkeypatch, capsys, case):
    monkeypatch.chdir(tmp_path)
    arguments, message = WRONG[case]
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.glob("out/*")) == []


@pytest.mark.parametrize("name", CONVERTERS)
def test_an_empty_folder(tmp_path, capsys, name):
    (tmp_path / "in").mkdir()
    yaml = ["--yaml", Path(__file__).parents[2] / "configs/convert/collar.yaml"] if name == "table" else []
    error = refused(capsys, name, tmp_path / "in", tmp_path / "out", *yaml)
    assert str(tmp_path / "in") in error


def test_a_failed_conversion_leaves_no_folder(tmp_path):
    with pytest.raises(SystemExit):
        main(["hapt", str(tmp_path / "nowhere"), str(tmp_path / "new" / "out")])
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_what_is_disputed_is_one_line(tmp_path):
    def plan(folder, options):
        return [Job("a.csv", list)]

    twice = Converter(
        name="twice", about=CONVERTERS["hapt"].about, plan=plan, dataset=lambda options: "twice", disputed=("a.csv",)
    )
    with pytest.raises(RecordingError, match="no file could be used; what is there is left out without --keep_dupl"):
        convert(twice, tmp_path / "out", Options(source=tmp_path))
    assert list((tmp_path / "out").glob("*")) == []
