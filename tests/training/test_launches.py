"""Whole launches: what a user sees when all goes well, and when something is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launching import DEEPSPEED, ROOT, TINY, environment, finish, flags, free_port, losses, run, start, validations
from wandb_log import summary

from aar_dist.base.local import Local
from aar_dist.base.storage import hash_tree
from aar_dist.store.pins import pins
from aar_dist.store.registry import Store, resolve
from aar_dist.training.checkpoints import complete
from aar_dist.training.pretrain import main

pytestmark = pytest.mark.launch

# All that the launcher itself writes with --log_level warning.
LAUNCHER = r"\[\d{4}-\d\d-\d\d .*(\[WARNING\].*Unable to find hostfile|\[ERROR\].* exits with return code)"
SHORT = {"train.max_steps": 8, "train.val_every": 4}


@pytest.fixture(scope="module")
def trained(shard_set, tmp_path_factory) -> Path:
    """A finished run of 8 steps on 2 ranks."""
    out = tmp_path_factory.mktemp("launch") / "run"
    settings = SHORT | {"tracking.mode": "offline", "train.pictures": 2, "deepspeed.gradient_clipping": 1.0}
    launch = start(out, shard_set, settings)
    code, said = finish(launch)
    assert code == 0, said
    (out / "said.txt").write_text(said)
    (out / "port.txt").write_text(launch.args[launch.args.index("--master_port") + 1])
    return out


def test_a_run_directory_holds_everything(trained):
    for name in ("config.yaml", "metrics.jsonl", "finished", "log/rank_0.log", "log/rank_1.log"):
        assert (trained / name).stat().st_size > 0
    assert [p.name for p in complete(trained / "checkpoints")] == ["step_00000004", "step_00000008"]
    assert [p.name for p in sorted((trained / "pictures").iterdir())] == [
        "step_00000000.png", "step_00000004.png", "step_00000008.png"
    ]  # fmt: skip
    assert [step for step, *_ in losses(trained)] == list(range(1, 9))


def test_rows_hold_what_was_asked_for(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = next(row for row in rows if row["step"] == 8 and "loss" in row)
    wanted = {"loss", "lr", "grad_norm", "skipped_steps", "segments_per_s", "hours_per_s", "loader_share", "memory_gb"}
    assert wanted | {"mfu", "matmul_tflops"} <= last.keys()
    for row in rows:  # one launch measures once, and a share of what it measured went into the model
        if "mfu" in row:
            assert row["matmul_tflops"] == last["matmul_tflops"] > 0.001
            assert 0 < row["mfu"] < 1
            assert 0 <= row["loader_share"] <= 1
    assert {"loss/fast", "loss/slow"} & last.keys()
    for row in validations(trained):
        for name in ("loss", "zero_mse", "interpolation_mse"):
            assert {f"val/{name}", f"val/{name}/fast", f"val/{name}/slow"} <= row.keys()
    assert [row["step"] for row in validations(trained)] == [0, 4, 8]


def test_the_terminal_shows_progress_and_no_noise(trained):
    said = (trained / "said.txt").read_text().splitlines()
    assert said[0].startswith(str(trained))
    assert any("validation fast" in line for line in said)
    assert any("finished 8 steps: store://aar@1" in line for line in said)
    assert not [line for line in said if "Warning" in line or "built successfully" in line or "ld:" in line]


def test_wandbs_reader_shows_the_offline_run(trained):
    (folder,) = (trained / "wandb").glob("offline-run-*")
    said = summary(folder)
    for name in ("loss", "val/loss", "val/loss/fast", "segments_per_s", "hours_per_s", "lr", "reconstruction"):
        assert f"  {name} " in said


def test_the_store_holds_a_model_that_scores_as_at_the_end(trained):
    checkpoint = resolve("store://aar@latest", trained / "store")
    assert all(value.dtype == torch.float32 for value in checkpoint.weights().values())
    assert checkpoint.manifest["step"] == 8
    assert checkpoint.metrics()["val/loss"] == validations(trained)[-1]["val/loss"]
    card = (checkpoint.path / "card.md").read_text()
    for said in ("# aar\n", "| fast | ", "- licence of fast: ", "## Results", 'resolve("store://aar@latest", "STORE")'):
        assert said in card
    checkpoint.objective()


def test_nothing_is_left_in_shared_memory(trained):
    port = (trained / "port.txt").read_text()
    assert list(Path("/dev/shm").glob(f"deepspeed_*_{port}_*")) == []


def test_continued_pretraining_starts_from_the_stored_weights(trained, shard_set, tmp_path):
    settings = SHORT | {"init_from": "store://aar@latest", "store.path": str(trained / "store"), "train.max_steps": 1}
    code, said = run(tmp_path / "more", shard_set, settings)
    assert code == 0, said
    assert "\ninit_from: store://aar@1\n" in (tmp_path / "more" / "config.yaml").read_text()
    assert [pin.folder for pin in pins(Local(trained / "store"), "aar", 1)] == [str(tmp_path / "more")]
    first, last = validations(tmp_path / "more")[0], validations(trained)[-1]
    assert first["val/loss"] == pytest.approx(last["val/loss"], rel=1e-6)
    assert Store(trained / "store").versions("aar") == [1, 2]


def test_a_damaged_newest_checkpoint_gives_way_with_a_warning(trained, shard_set, tmp_path):
    subprocess.run(["cp", "-r", str(trained), str(tmp_path / "run")], check=True)
    (tmp_path / "run" / "finished").unlink()
    file = next((tmp_path / "run" / "checkpoints" / "step_00000008").glob("*rank_1*optim_states.pt"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    settings = SHORT | {"train.pictures": 2, "deepspeed.gradient_clipping": 1.0}
    code, said = run(tmp_path / "run", shard_set, settings)
    assert code == 0, said
    assert f"WARNING: {file} is damaged" in said
    assert "goes on from step 4" in said
    assert losses(tmp_path / "run") == losses(trained)
    # Version 1 was published before ``finished`` was taken away: the run finds it there.
    assert Store(tmp_path / "run" / "store").versions("aar") == Store(trained / "store").versions("aar")
    assert json.loads((tmp_path / "run" / "finished").read_text())["model"] == "store://aar@1"


def test_another_architecture_is_one_line(trained, shard_set):
    """… and leaves the run directory as it was, unfinished work and damaged checkpoints included."""
    (trained / "finished").rename(trained / "put_aside")
    leftover = trained / "checkpoints" / "step_00000009.staging-x"
    leftover.mkdir()
    newest = trained / "checkpoints" / "step_00000008"
    damaged = newest.rename(newest.with_name("step_00000009"))
    manifest = damaged / "manifest.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(b"{")
    (trained / ".lock").write_text("")
    before = hash_tree(trained)
    try:
        process = start(trained, shard_set, SHORT | {"model.n_layers": 3}, log_level="warning")
        said = process.communicate(timeout=180)[0]
        (trained / ".lock").write_text("")  # it names the process that held it last
        assert hash_tree(trained) == before
        assert leftover.is_dir()
    finally:
        manifest.write_bytes(kept)
        damaged.rename(newest)
        leftover.rmdir()
        (trained / "put_aside").rename(trained / "finished")
    assert process.returncode == 2
    ours = [line for line in said.splitlines() if not re.match(LAUNCHER, line)]
    assert len([line for line in ours if line]) == 1, said
    assert "step_00000004 was written with model.n_layers 2, now it is 3" in ours[0]


def test_a_batch_the_ranks_do_not_divide_is_one_line(shard_set, tmp_path):
    code, said = run(tmp_path / "run", shard_set, {"train.batch_size": 33})
    assert code == 2
    assert said == (
        "error: train.batch_size 33 is not a multiple of 2 ranks; the nearest that is: 32; ranks that share it "
        "equally: 1"
    )
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_one_line_and_keeps_what_was_saved(shard_set, tmp_path):
    """On a tmpfs of 5 MB, in a mount namespace of its own; three checkpoints of 1.3 MB do not fit with a fourth."""
    settings = TINY | {"train.max_steps": 40, "train.keep_last": 3, "out": "DISK/run", "data.shards": str(shard_set)}
    launch = (
        f"{DEEPSPEED} --num_accelerators 2 --master_port {free_port()} launch/pretrain.py {' '.join(flags(settings))}"
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=5m none DISK; {launch}; code=$?; cp -r DISK/run {tmp_path}/kept; exit $code"
    namespace = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    process = subprocess.Popen(
        [*namespace, "sh", "-c", script.replace("DISK", str(disk))],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    code, said = finish(process)
    assert code == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "the disk is full" in errors[0]
    assert "Traceback" not in said
    kept = tmp_path / "kept" / "checkpoints"
    assert complete(kept)
    assert not list(kept.glob("*staging*"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"deepspeed.zero_options": '{"foo": 1}'},
            "error: deepspeed.zero_options: foo: Extra inputs are not permitted",
        ),
        ({"store.path": "{tmp_path}/file/store"}, "error: {tmp_path}/file/store/models/aar: Not a directory"),
    ],
)
def test_what_only_a_process_group_can_refuse_leaves_no_run(shard_set, tmp_path, settings, said):
    (tmp_path / "file").write_text("in the way")
    settings = {key: value.replace("{tmp_path}", str(tmp_path)) for key, value in settings.items()}
    command = [sys.executable, "launch/pretrain.py", "--out", str(tmp_path / "run"), "--data.shards", str(shard_set)]
    done = subprocess.run(
        [*command, *flags(TINY | settings)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [said.replace("{tmp_path}", str(tmp_path))]
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model.n_layer", "3"], "unknown flag --model.n_layer (did you mean model.n_layers?)"),
        (["--config", "CONFIG"], "unknown key train.batchsize (did you mean train.batch_size?)"),
        (["--out", ""], "out is missing"),
        (["--out", "RUN", "--init_from", "store://aar@1"], "in which store? Set store.path"),
        (["--out", "RUN", "--data.shards", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_ends_before_anything_starts(tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "c.yaml").write_text("train: {batchsize: 3}")
    names = {"CONFIG": str(tmp_path / "c.yaml"), "RUN": str(tmp_path / "run")}
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as stop:
        main([names.get(argument, argument) for argument in arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_run_directory_in_use_is_refused(trained, shard_set, tmp_path):
    holder = subprocess.Popen(
        ["flock", str(tmp_path / ".lock"), "sleep", "60"], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        code, said = run(tmp_path, shard_set, SHORT)
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()
    assert code == 2
    assert "is in use" in said
