"""What a run leaves for its mirror, and what is made of that; W&B itself is in test_tracking_live.py."""

import json
import math
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from finetune_toys import publish_backbone
from hypothesis import given
from hypothesis import strategies as st
from servers import object_store

from aar_dist.base.code import code_version
from aar_dist.base.errors import ConfigError
from aar_dist.stream.batch import SegmentBatch
from aar_dist.training import tracking
from aar_dist.training.ranks import Ranks
from aar_dist.training.tracking import nodes, privacy
from aar_dist.training.tracking.config import TrackingConfig, mode_of
from aar_dist.training.tracking.record import Record
from aar_dist.training.tracking.rows import Steps
from aar_dist.training.tracking.sending import Sender, artifacts, identity, settings
from aar_dist.training.tracking.tables import write_table
from aar_dist.training.validation import some_of_each


def write(path: Path, *rows: dict, end: str = "") -> None:
    with open(path, "a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows) + end)


def begin(root: Path, *, from_step: int = 0, val_every: int = 5, shards=()) -> tracking.Attempt:
    return tracking.begin(
        root, world_size=2, from_step=from_step, val_every=val_every, total_steps=20, shards=list(shards)
    )


def test_mode_variable_wins_then_configuration_then_key(tmp_path):
    def mode(setting="auto", **environ):
        return mode_of(TrackingConfig(mode=setting), {"NETRC": str(tmp_path / "netrc"), **environ})

    assert (mode(), mode("online"), mode("disabled")) == ("offline", "online", "disabled")
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    assert mode() == "online"
    assert mode(WANDB_BASE_URL="http://elsewhere:80") == "offline"
    assert mode(WANDB_API_KEY="k", WANDB_BASE_URL="http://elsewhere:80") == "online"
    assert mode("online", WANDB_MODE="disabled") == "disabled"
    assert mode("online", WANDB_MODE="dryrun") == "offline"
    with pytest.raises(ConfigError, match=r"tracking\.init_timeout_s must be positive, got 0"):
        TrackingConfig(init_timeout_s=0)


def test_the_id_is_made_once(tmp_path):
    first = tracking.run_id(tmp_path)
    assert len(first) == 8
    assert tracking.run_id(tmp_path) == first
    assert tracking.run_id(tmp_path / "other") != first


def test_a_step_is_handed_on_whole_and_once(tmp_path):
    file = tmp_path / "metrics.jsonl"
    steps = Steps(file, after=-1)
    assert list(steps.new()) == []  # there is no file yet
    write(file, {"step": 0, "val/loss": 3.0}, {"step": 1, "loss": 2.0}, {"step": 2, "loss": None})
    assert list(steps.new()) == [(0, {"val/loss": 3.0}), (1, {"loss": 2.0})]
    write(file, {"step": 2, "val/loss": 1.0}, end='{"step": 3, "lo')
    assert list(steps.new()) == []
    write(file, end='ss": 1.5}\n')
    ((step, row),) = steps.new()
    assert step == 2
    assert row["val/loss"] == 1.0
    assert math.isnan(row["loss"])
    assert list(steps.rest()) == [(3, {"loss": 1.5})]
    assert list(steps.rest()) == []


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(-1, 12), st.booleans())
def test_whatever_was_cut_and_written_again_each_step_comes_once(tmp_path_factory, cuts, after, looks):
    file = tmp_path_factory.mktemp("cut") / "metrics.jsonl"
    steps, found = Steps(file, after), []
    for cut in cuts:  # each launch goes on from an earlier step, in a file written anew
        kept = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        file.unlink(missing_ok=True)
        write(file, *(row for row in kept if row["step"] < cut))
        start = len(file.read_text().splitlines())
        write(file, *({"step": step, "loss": step / 2} for step in range(start, 13)))
        if looks:
            found += steps.new()
    found += [*steps.new(), *steps.rest()]
    assert found == [(step, {"loss": step / 2}) for step in range(after + 1, 13)]


@dataclass
class FakeMirror:
    """Keeps what it is given."""

    last_step: int = -1
    rows: list = field(default_factory=list)
    alerts: list = field(default_factory=list)
    sent: list = field(default_factory=list)
    config: dict = field(default_factory=dict)
    closed: dict = field(default_factory=dict)

    def send(self, step, row, picture, table):
        self.rows.append((step, row, picture and picture.name, table))

    def alert(self, alert):
        self.alerts.append((alert.title, alert.text, alert.level))

    def artifact(self, made):
        self.sent.append(made.name)

    def configure(self, more):
        self.config |= more

    def close(self, **how):
        self.closed = how


def pass_over(root: Path, *, after: int = -1, online: bool = True, **how) -> FakeMirror:
    mirror = FakeMirror(last_step=after)
    Sender(Record(root), mirror, online=online).close(**({"ended": True} | how))
    return mirror


def test_the_last_step_of_a_killed_run_waits_only_if_it_lacks_its_validation(tmp_path):
    begin(tmp_path)
    write(tmp_path / "metrics.jsonl", *({"step": step, "loss": 1.0} for step in range(5)))
    assert [step for step, *_ in pass_over(tmp_path).rows] == [0, 1, 2, 3, 4]
    write(tmp_path / "metrics.jsonl", {"step": 5, "loss": 1.0})
    assert [step for step, *_ in pass_over(tmp_path, after=3).rows] == [4]
    assert [step for step, *_ in pass_over(tmp_path, after=3, everything=True).rows] == [4, 5]
    assert [step for step, *_ in pass_over(tmp_path, online=False).rows] == [0, 1, 2, 3, 4, 5]  # a folder is made anew
    write(tmp_path / "metrics.jsonl", {"step": 5, "val/loss": 0.5})
    assert [step for step, *_ in pass_over(tmp_path, after=3).rows] == [4, 5]
    assert [step for step, *_ in pass_over(tmp_path, after=3, ended=False).rows] == [4]  # who trains may still add to 5


def test_a_step_brings_its_picture_its_table_and_its_attempt(tmp_path):
    record = Record(tmp_path)
    begin(tmp_path)
    begin(tmp_path, from_step=4)
    for folder in ("pictures", "reconstructions"):
        (tmp_path / folder).mkdir()
    record.picture(5).touch()
    record.table(5).write_text('{"columns": [], "rows": []}')
    write(tmp_path / "metrics.jsonl", {"step": 4, "loss": 1.0}, {"step": 5, "loss": 1.0}, {"step": 5, "val/loss": 2.0})
    mirror = pass_over(tmp_path)
    assert mirror.rows == [
        (4, {"loss": 1.0, "attempt": 1}, None, None),
        (5, {"loss": 1.0, "val/loss": 2.0, "attempt": 2}, "step_00000005.png", {"columns": [], "rows": []}),
    ]
    assert mirror.config["attempt"] == 2
    assert [one["from_step"] for one in mirror.config["attempts"]] == [0, 4]


def test_alerts_and_shard_sets_are_sent_once(tmp_path):
    begin(tmp_path, shards=[{"url": "s3://key:pw@bucket/herd", "identity": "abc", "shards": {"a.tar": "00"}}])
    tracking.NoTracker(tmp_path).alert("stall", "rank 1 of https://user:pw@host/x?token=1 hangs", "error")
    first = pass_over(tmp_path)
    assert first.alerts == [("stall", "rank 1 of https://host/x hangs", "error")]
    assert first.sent == ["shards-herd"]
    second = pass_over(tmp_path)
    assert (second.alerts, second.sent) == ([], [])
    assert "pw" not in "".join(file.read_text() for file in (tmp_path / "wandb").iterdir())


def test_the_model_is_told_with_its_scores_and_hashes(tmp_path):
    made = tmp_path / "store"
    made.mkdir()
    (made / "manifest.json").write_text('{"name": "aar", "version": 3, "files": {"model.safetensors": "0a"}}')
    (made / "metrics.json").write_text('{"val/loss": 0.5}')
    (tmp_path / "config.yaml").write_text("tracking: {upload_model: false}\n")
    (tmp_path / "finished").write_text(json.dumps({"model": "store://aar@3", "path": str(made), "step": 8}))
    (artifact,) = artifacts(Record(tmp_path))
    assert (artifact.name, artifact.type, artifact.files) == ("aar", "model", {})
    assert artifact.metadata["scores"] == {"val/loss": 0.5}
    assert json.loads(artifact.texts["manifest.json"])["files"] == {"model.safetensors": "0a"}
    (tmp_path / "config.yaml").write_text("tracking: {upload_model: true}\n")
    assert set(artifacts(Record(tmp_path))[0].files) == {"manifest.json", "metrics.json"}


def test_a_model_in_a_bucket_is_found_there_and_a_store_that_is_away_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AAR_DIST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.yaml").write_text("tracking: {upload_model: true}\n")
    with object_store("bucket"):
        made = publish_backbone("s3://bucket/team")
        (tmp_path / "finished").write_text(json.dumps({"model": made.reference, "path": made.where, "step": 8}))
        (artifact,) = artifacts(Record(tmp_path))
        assert artifact.name == "toy"
        assert artifact.metadata["path"] == "s3://bucket/team/models/toy/1"
        assert set(artifact.files) == {*made.manifest["files"], "manifest.json"}
    (tmp_path / "finished").write_text(json.dumps({"model": "store://a@1", "path": "nosuch://b/models/a/1", "step": 8}))
    (artifact,) = artifacts(Record(tmp_path))
    assert (artifact.name, artifact.files) == ("model", {})


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ("finished", {"failed": False, "paused": False}),
        ("stopped", {"failed": True, "paused": True}),
        ("failed", {"failed": True, "paused": False}),
    ],
)
def test_how_it_ended_is_told(tmp_path, ends, told):
    attempt = begin(tmp_path)
    (tmp_path / "config.yaml").write_text("{}\n")
    if ends == "finished":
        (tmp_path / "finished").write_text(json.dumps({"model": "store://a@1", "path": str(tmp_path), "step": 1}))
    tracker = tracking.start(TrackingConfig(mode="disabled"), tmp_path, attempt, warn=pytest.fail)
    error = RuntimeError("no\nmemory") if ends == "failed" else None
    tracker.__exit__(type(error) if error else None, error, None)
    mirror = pass_over(tmp_path)
    assert mirror.closed == told
    said = {"finished": "run finished", "failed": "run failed"}.get(ends)
    assert [title for title, *_ in mirror.alerts] == ([said] if said else [])
    if ends == "failed":
        assert mirror.alerts[0][1].endswith(": no memory")


def test_names_and_groups(tmp_path, monkeypatch):
    root = tmp_path / "seeds" / "one"
    root.mkdir(parents=True)

    def called(text):
        (root / "config.yaml").write_text(text)
        return identity(Record(root), *settings(Record(root)))

    told = called("store: {name: timae}")
    assert (told.name, told.group, told.job_type, told.project) == ("one", "timae", "pretrain", "aar_dist")
    assert called("split: {fold: 0}\ntracking: {group: study, name: fold 0}").group == "study"
    assert called("split: {fold: 0}").job_type == "finetune"
    assert called("tracking: {tags: [net, seed 1]}").tags == ("net", "seed 1")
    assert called("{}").group == "seeds"
    monkeypatch.setenv("WANDB_PROJECT", "other")
    assert called("{}").project == "other"


def test_no_secret_leaves_with_the_configuration_or_the_environment():
    config = {"data": {"shards": ["s3://id:secret@bucket/a", "/a/b"]}, "x": {"api_key": "abc", "n_tokens": 3}}
    config |= {"url": "https://host/a?X-Amz-Signature=f00", "init_from": "store://aar@latest", "mask_token": "learned"}
    shown = privacy.scrubbed(config)
    assert shown["data"]["shards"] == ["s3://bucket/a", "/a/b"]
    assert shown["x"] == {"api_key": "(hidden)", "n_tokens": 3}
    assert (shown["url"], shown["init_from"]) == ("https://host/a", "store://aar@latest")
    environ = {"OMP_NUM_THREADS": "1", "AWS_SECRET_ACCESS_KEY": "s", "WANDB_API_KEY": "s", "MY_THING": "s"}
    assert privacy.environment({**environ, "NCCL_TOKEN": "s"}) == {"NCCL_TOKEN": "(hidden)", "OMP_NUM_THREADS": "1"}


def test_the_code_is_known_by_commit_where_git_tracks_it(tmp_path):
    def git(*arguments):
        name = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", "-C", tmp_path, *name, *arguments], check=True, capture_output=True)

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    git("init")
    installed = code_version(package)
    assert (installed.commit, installed.dirty) == (None, None)  # inside a repository, but no part of it
    git("add", ".")
    git("commit", "-m", "first")
    clean = code_version(package)
    assert clean.commit
    assert clean.dirty is False
    (package / "__init__.py").write_text("x = 2\n")
    changed = code_version(package)
    assert (changed.commit, changed.dirty) == (clean.commit, True)
    assert changed.hash != clean.hash == installed.hash


def test_every_node_is_seen_by_name(monkeypatch):
    cpu = torch.device("cpu")
    alone = nodes.Nodes(Ranks(0, 1, 0, 1), cpu)
    (name,) = alone.names
    assert set(alone.take()) == {f"system/{name}/cpu", f"system/{name}/memory"}
    monkeypatch.setattr(nodes, "to_all", lambda _: [("a", True), ("a", False), ("a", True), ("b", True)])
    parts = []
    monkeypatch.setattr(nodes, "sum_ranks", lambda part: parts.append(part) or torch.stack(parts).sum(0))
    for rank, local in enumerate((0, 1, 0, 0)):
        told = nodes.Nodes(Ranks(rank, 4, local, 2), cpu).take()
    assert {key.split("/")[1] for key in told} == {"a-1", "a-2", "b"}
    assert len(told) == 6
    assert all(0 <= value <= 100 for value in told.values())


def test_a_gpu_that_does_not_tell_how_busy_it_is_ends_nothing(monkeypatch):
    class NVMLError(Exception):
        """Of nvidia-ml-py."""

    def not_supported(device):
        raise NVMLError

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (25, 100))
    monkeypatch.setattr(torch.cuda, "utilization", not_supported)
    busy, memory = nodes._gpu(torch.device("cuda", 0))
    assert (math.isnan(busy), memory) == (True, 75.0)


def test_a_table_tells_what_was_hidden_and_what_was_predicted(tmp_path, segments):
    batch = segments(4, 6, n_channels=1)
    values, valid = batch.values.numpy(), batch.valid.numpy()
    masked = valid.copy()
    masked[:, 2:] = False
    about = {"rate_hz": [10.0, 20.0], "datasets": ["cow", "horse"], "channels": ["acc x"]}
    path = write_table(tmp_path / "tables" / "a.json", values, values + 0.5, masked, valid, **about)
    told = json.loads(path.read_text())
    cow, horse = told["rows"]
    assert cow[:4] == ["cow", "acc x", 10.0, 0.25]
    assert (len(cow[4]), len(horse[4])) == (4, 6)
    assert cow[5] == [1, 1, 0, 0]
    assert cow[6][2:] == [None, None]
    assert cow[6][0] == pytest.approx(values[0, 0, 0] + 0.5, rel=1e-3)


def test_each_data_set_is_shown_before_one_is_shown_twice(segments):
    batch = segments(*range(3, 10))
    of = torch.tensor([2, 2, 2, 0, 0, 1, 2])
    batch = SegmentBatch(**{**vars(batch), "dataset": of, "duration_s": tuple(range(7))})
    shown = some_of_each(batch, 4)
    assert shown.dataset.tolist() == [0, 1, 2, 0]
    assert shown.duration_s == (3, 5, 0, 4)
    assert torch.equal(shown.values[0], batch.values[3])
    assert len(some_of_each(batch, 20)) == 7
