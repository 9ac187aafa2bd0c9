"""Building: the same bytes whatever the workers, what webdataset reads, one line for what is wrong."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from aar_dist.base.errors import USER_ERROR_EXIT, RecordingError, ShardError
from aar_dist.base.jobs import Session, Workers
from aar_dist.recordings.write import SensorData, dataset_to_hdf5
from aar_dist.shards.build import BuildOptions, build, build_in, merge_runs
from aar_dist.shards.command import folders_of, main
from aar_dist.shards.format import read_info
from aar_dist.shards.summary import figure, render, summarize
from aar_dist.shards.verify import verify_shards
from aar_dist.shards.writer import write_shard

ROOT = Path(__file__).parents[2]


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.launch
def test_two_workers_write_the_same_bytes(recordings, options, shard_set, tmp_path):
    half = replace(options, pack={"acc": "float16", "gyr": "int16"})
    with Session(Workers(count=2)) as session:
        build_in(session, recordings, tmp_path / "two", options)
        build_in(session, recordings, tmp_path / "two_packed", half)
    assert hashes(tmp_path / "two") == hashes(shard_set)
    packed = build(recordings, tmp_path / "packed", half, workers=1)
    assert hashes(tmp_path / "two_packed") == hashes(packed.folder)
    assert {one["format"] for one in packed.info["packing"]} == {"float16", "int16"}


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(recordings, options, shard_set, tmp_path, monkeypatch):
    import aar_dist.shards.build as module

    written = []

    def dies_at_the_fourth(job):
        written.append(job.spec.name)
        if len(written) == 4:
            raise KeyboardInterrupt
        return write_shard(job)

    monkeypatch.setattr(module, "write_shard", dies_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        build(recordings, tmp_path / "set", options, workers=1)
    monkeypatch.setattr(module, "write_shard", write_shard)
    with pytest.raises(ShardError, match="did not finish: run the same build again"):
        read_info(tmp_path / "set")
    first = (tmp_path / "set" / written[0]).stat().st_mtime_ns
    build(recordings, tmp_path / "set", options, workers=1)
    assert hashes(tmp_path / "set") == hashes(shard_set)
    assert (tmp_path / "set" / written[0]).stat().st_mtime_ns == first, "a finished shard was written again"


def build_command(recordings: Path, out: object) -> list[str]:
    """What makes the fixture ``shard_set``, with one worker."""
    command = [sys.executable, ROOT / "shards/build.py", "--data_root", recordings, "--datasets", "fast", "slow"]
    command += ["--output_folder", out, "--longest_segment_s", "1", "--shard_size", "700kB", "--workers", "1"]
    return list(map(str, command))


def test_a_build_killed_by_sigkill_goes_on(recordings, shard_set, tmp_path):
    command = build_command(recordings, tmp_path / "set")
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("set/*.tar")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
    assert not (tmp_path / "set" / "manifest.parquet").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert hashes(tmp_path / "set") == hashes(shard_set)


def test_another_order_of_options_is_refused(recordings, options, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "set")
    other = replace(options, train_ratio=0.25, pack={"acc": "int16"})
    told = r"other options \(train_ratio 0.5, not 0.25; pack \{\}, not \{'acc': 'int16'\}\); choose another"
    with pytest.raises(ShardError, match=told):
        build(recordings, tmp_path / "set", other, workers=1)


def test_webdataset_reads_every_sample_equal_to_its_source(recordings, shard_set):
    manifest = pq.read_table(shard_set / "manifest.parquet").to_pylist()
    wds.utils.enforce_security = True
    seen = 0
    for path in sorted(shard_set.glob("*.tar")):
        for sample in wds.WebDataset(str(path), shardshuffle=False).decode():
            info = sample["json"]
            with h5py.File(recordings / info["dataset"] / f"{info['recording']}.hdf5") as source:
                for row in (r for r in manifest if r["key"] == sample["__key__"] and r["dataset"] == info["dataset"]):
                    first = round(row["start_s"] * row["rate_hz"])
                    expected = source[row["sensor"]][first : first + row["n_samples"]]
                    stored = sample[f"{row['sensor']}.npy"]
                    assert stored.dtype == expected.dtype
                    assert np.array_equal(stored, expected)
                    raw = np.fromfile(path, row["dtype"], row["n_samples"] * 3, offset=row["offset"])
                    assert np.array_equal(raw.reshape(-1, 3), expected)
                    labels = source["label"][first : first + row["n_samples"]]
                    assert np.array_equal(sample["label.npy"], labels)
                    seen += 1
    assert seen == len(manifest)


def test_samples_have_the_same_members_and_no_trace_of_the_machine(shard_set):
    for path in shard_set.glob("*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        kinds = [m.name.partition(".")[2] for m in members]
        expected = (
            ["acc.npy", "gyr.npy", "label.npy", "json"]
            if path.name.startswith("fast")
            else ["acc.npy", "label.npy", "json"]
        )
        assert kinds == expected * (len(members) // len(expected))
        assert {(m.mtime, m.uid, m.uname) for m in members} == {(0, 0, "")}


def test_balance_is_printed_and_kept(shard_set):
    summary = summarize(shard_set)
    assert all(p.spread < 0.02 for p in summary.parts)
    assert 0 < summary.overlap < 0.01
    text = render(summary)
    assert "overlap of neighbouring chunks" in text
    assert "shorter than the longest segment" in text
    assert json.loads(summary.as_json())["identity"] == summary.identity
    assert len(figure(summary).axes) == 3


def test_no_subject_is_on_both_sides(shard_set):
    rows = pq.read_table(shard_set / "manifest.parquet").to_pylist()
    sides = {split: {(r["dataset"], r["subject"]) for r in rows if r["split"] == split} for split in ("train", "val")}
    assert sides["train"]
    assert sides["val"]
    assert not sides["train"] & sides["val"]


def test_label_runs_are_those_of_the_recording(recordings, shard_set):
    runs = pq.read_table(shard_set / "labels.parquet").to_pylist()
    with h5py.File(recordings / "fast" / "cow_f1_ds_0.hdf5") as file:
        labels, classes = file["label"][:], list(file["label"].attrs["classes"])
    rebuilt = np.full(len(labels), -1)
    for run in (r for r in runs if r["recording"] == "cow_f1_ds_0"):
        rebuilt[round(run["start_s"] * 50) : round(run["stop_s"] * 50)] = classes.index(run["class"])
    assert np.array_equal(rebuilt, labels)


def test_a_target_is_kept_as_runs_of_its_value(tmp_path):
    target = np.repeat([np.nan, 62.5, 70.0], 100)
    acc = SensorData(values=np.zeros((300, 1), "<f4"), rate_hz=10.0, units="g", axes=("x",))
    for subject in "ab":
        dataset_to_hdf5(
            tmp_path / "d" / "hr", dataset="hr", species="man", subject=subject, sensors={"acc": acc}, label=target
        )
    build(tmp_path / "d", tmp_path / "set", BuildOptions(datasets=("hr",)), workers=1)
    runs = pq.read_table(tmp_path / "set" / "labels.parquet").to_pylist()
    told = [(r["recording"], r["start_s"], r["stop_s"], r["class"], r["value"]) for r in runs]
    assert told == [
        (f"man_{s}_ds_0", start, stop, None, value)
        for s in "ab"
        for start, stop, value in ((10, 20, 62.5), (20, 30, 70.0))
    ]
    assert "(a number)" in render(summarize(tmp_path / "set"))


def test_a_set_without_any_label_is_built_verified_and_summed_up(tmp_path):
    for subject in "ab":
        acc = SensorData(values=np.ones((200, 1), np.float32), rate_hz=10.0, units="g", axes=("x",))
        dataset_to_hdf5(tmp_path / "in/bare", dataset="bare", species="cow", subject=subject, sensors={"acc": acc})
    made = build(tmp_path / "in", tmp_path / "out", BuildOptions(datasets=("bare",), longest_segment_s=1.0), workers=1)
    assert "all hashes match" in verify_shards(made.folder)
    assert summarize(made.folder).label_hours == {"bare": {}}


def test_runs_cut_at_a_border_become_one():
    def run(start, stop, name="a"):
        return {"dataset": "d", "recording": "r", "start_s": start, "stop_s": stop, "class": name, "value": None}

    assert merge_runs([run(2.0, 3.0), run(1.0, 2.0), run(3.0, 4.0, "b")]) == [run(1.0, 3.0), run(3.0, 4.0, "b")]


# --- what is wrong is said in one line ---------------------------------------------------------------------------


def test_a_flipped_byte_is_named(shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "set")
    assert "all hashes match" in verify_shards(tmp_path / "set")
    victim = sorted((tmp_path / "set").glob("*.tar"))[1]
    data = bytearray(victim.read_bytes())
    data[5000] ^= 1
    victim.write_bytes(data)
    with pytest.raises(ShardError, match=f"{victim.name}: has sha256 .* damaged"):
        verify_shards(tmp_path / "set")


def test_a_short_shard_is_named(shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "set")
    victim = sorted((tmp_path / "set").glob("*.tar"))[0]
    victim.write_bytes(victim.read_bytes()[:-700])
    with pytest.raises(ShardError, match=f"{victim.name}: has .* bytes, the manifest says .* cut short"):
        verify_shards(tmp_path / "set")


def test_a_manifest_of_another_build_is_named(recordings, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "set")
    other = build(recordings, tmp_path / "other", BuildOptions(datasets=("slow",), longest_segment_s=1.0), workers=1)
    shutil.copy(other.folder / "manifest.parquet", tmp_path / "set" / "manifest.parquet")
    with pytest.raises(ShardError, match="damaged or of another build"):
        summarize(tmp_path / "set")


def run_build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "shards/build.py"), *arguments], capture_output=True, text=True)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]


def assert_refused(capsys, arguments: list[object], *words: str) -> None:
    """The same by the door's own function: starting Python takes as long as a small build."""
    with pytest.raises(SystemExit) as left:
        main(list(map(str, arguments)))
    said = capsys.readouterr().err.splitlines()
    error = "\n".join(line for line in said if not line.startswith("checking "))  # progress, on a slow machine
    assert left.value.code == USER_ERROR_EXIT
    assert "\n" not in error
    assert error.startswith("error: ")
    assert all(word in error for word in words), error


def test_a_missing_folder(tmp_path):
    done = run_build("--data_root", str(tmp_path / "nowhere"), "--output_folder", str(tmp_path / "out"))
    assert_one_line(done, "nowhere", "no such folder")
    assert not (tmp_path / "out").exists()


def test_bad_recordings_are_listed_together_and_can_be_skipped(recordings, tmp_path, capsys):
    shutil.copytree(recordings / "slow", tmp_path / "data" / "slow")
    cut = tmp_path / "data" / "slow" / "cow_s0_ds_0.hdf5"
    cut.write_bytes(cut.read_bytes()[:3000])
    with h5py.File(tmp_path / "data" / "slow" / "cow_s1_ds_1.hdf5", "r+") as file:
        del file["acc"].attrs["units"]
    arguments = ["--data_root", str(tmp_path / "data"), "--output_folder", str(tmp_path / "out"), "--workers", "1"]
    assert_refused(
        capsys, arguments, "2 of 8 recordings", "cow_s0_ds_0.hdf5", "cow_s1_ds_1.hdf5", "units", "--skip_bad"
    )
    assert not (tmp_path / "out").exists()
    main([*arguments, "--skip_bad"])
    printed = capsys.readouterr().out
    assert "left out" in printed
    assert "cow_s0_ds_0.hdf5" in printed


def test_flags_of_training_are_pointed_there(capsys):
    arguments = ["--data_root", ".", "--output_folder", "o", "--oversampling_factor", "4"]
    assert_refused(capsys, arguments, "data.mixture.oversampling_factor 4")


def test_a_misspelt_flag(capsys):
    assert_refused(capsys, ["--data_root", ".", "--output_folder", "o", "--train_ration", "1"], "--train_ratio?")


def test_a_full_disk_leaves_nothing_half_written(recordings, tmp_path):
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    build = f"{sys.executable} {ROOT}/shards/build.py --data_root {recordings} --output_folder {disk}/set --workers 1"
    script = f"mount -t tmpfs -o size=1m none {disk}; {build} --shard_size 700kB --longest_segment_s 1"
    script += f"; code=$?; cp -r {disk}/set {kept}; exit $code"
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True)
    assert_one_line(done, "the disk is full")
    left = [p.name for p in kept.iterdir()]
    assert not any("staging" in name for name in left)
    assert "manifest.parquet" not in left


def test_no_recording_at_all(tmp_path):
    (tmp_path / "data" / "empty").mkdir(parents=True)
    with pytest.raises(RecordingError, match=r"no usable recording|holds no"):
        build(tmp_path / "data", tmp_path / "out", BuildOptions(datasets=("empty",)), workers=1)


def test_two_folders_of_one_data_set_are_refused(recordings, tmp_path, capsys):
    for name in ("y2022", "y2023"):
        shutil.copytree(recordings / "slow", tmp_path / "data" / name)
    arguments = ["--data_root", tmp_path / "data", "--output_folder", tmp_path / "out", "--workers", 1]
    assert_refused(capsys, arguments, "y2022", "y2023", "cow_s0_ds_0", "data set slow")
    assert not (tmp_path / "out").exists()


def test_what_a_killed_conversion_left_is_no_data_set(recordings, tmp_path):
    shutil.copytree(recordings / "slow", tmp_path / "data" / "slow")
    shutil.copytree(recordings / "slow", tmp_path / "data" / "slow.staging-host-17")
    assert folders_of(tmp_path / "data") == ["slow"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--longest_segment_s", "nan"], "--longest_segment_s must be positive"),
        (["--longest_segment_s", "inf"], "--longest_segment_s must be positive"),
        (["--random_seed", "-1"], "--random_seed must lie in"),
        (["--train_ratio", "1.5"], "--train_ratio must lie in"),
        (["--datasets", "slow", "slow"], "names a folder twice"),
        (["--datasets", "sloww"], "no such folder"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--shard_size", "big"], "is no size"),
    ],
)
def test_values_out_of_range(recordings, tmp_path, flags, said, capsys):
    assert_refused(capsys, ["--data_root", recordings, "--output_folder", tmp_path / "out", *flags], said)
    assert not (tmp_path / "out").exists()


def test_a_finished_set_of_other_recordings_is_refused(recordings, tmp_path):
    shutil.copytree(recordings / "slow", tmp_path / "data" / "slow")
    options = BuildOptions(datasets=("slow",), longest_segment_s=1.0)
    build(tmp_path / "data", tmp_path / "set", options, workers=1)
    before = hashes(tmp_path / "set")
    build(tmp_path / "data", tmp_path / "set", options, workers=1)
    shutil.copy(tmp_path / "data/slow/cow_s0_ds_1.hdf5", tmp_path / "data/slow/cow_s9_ds_0.hdf5")
    with pytest.raises(ShardError, match=r"was built from other recordings.*added, removed or changed"):
        build(tmp_path / "data", tmp_path / "set", options, workers=1)
    assert hashes(tmp_path / "set") == before


def test_a_build_killed_at_its_very_end_is_tidied(recordings, options, shard_set, tmp_path):
    shutil.copytree(shard_set, tmp_path / "set")
    (tmp_path / "set" / ".build").mkdir()
    (tmp_path / "set" / "x.tar.staging-host-17").write_text("half")
    build(recordings, tmp_path / "set", options, workers=1)
    assert hashes(tmp_path / "set") == hashes(shard_set)
    assert "all hashes match" in verify_shards(tmp_path / "set")


def test_one_build_at_a_time(recordings, options, tmp_path):
    (tmp_path / "set" / ".build").mkdir(parents=True)
    with open(tmp_path / "set" / ".build" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ShardError, match="another build is at work"):
            build(recordings, tmp_path / "set", options, workers=1)


def test_tiny_recordings_with_long_names_are_balanced(tmp_path):
    classes = [f"behaviour number {i:02d} with a name" for i in range(30)]
    rng = np.random.default_rng(0)
    for i in range(60):
        subject = f"{i % 6}" + ("x" * 90 if i % 2 else "")
        acc = SensorData(values=rng.normal(size=(int(rng.integers(5, 60)), 1)), rate_hz=10.0, units="g", axes=("x",))
        (path,) = dataset_to_hdf5(
            tmp_path / "d" / "t", dataset="t", species="cow", subject=subject, sensors={"acc": acc}, first_index=i,
            label=np.zeros(len(acc.values), np.int16), classes=classes,
        )  # fmt: skip
        for k in range(1, 17):  # 1,020 in all: a copy is made in a fraction of the time
            shutil.copy(path, path.with_name(path.name.replace(f"_ds_{i}.", f"_ds_{i + 60 * k}.")))
    options = BuildOptions(datasets=("t",), longest_segment_s=1.0, shard_bytes=600_000)
    build(tmp_path / "d", tmp_path / "set", options, workers=1)
    parts = summarize(tmp_path / "set").parts
    assert min(p.shards for p in parts) >= 3
    assert max(p.spread for p in parts) < 0.02
