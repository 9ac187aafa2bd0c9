"""Steps that are left out are explained by where their segments were recorded; spikes are told once; a resumed run says
what an uninterrupted one would have said."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from aar_dist.base.config import load
from aar_dist.base.errors import ConfigError
from aar_dist.objectives.base import told
from aar_dist.stream.batch import Origin
from aar_dist.stream.config import DataConfig
from aar_dist.stream.loader import open_stream
from aar_dist.training.config import SCHEMA
from aar_dist.training.console import Console
from aar_dist.training.health.events import Events, cut_back
from aar_dist.training.health.monitor import Health
from aar_dist.training.health.spikes import Spikes
from aar_dist.training.health.suspects import Finding, look, merged
from aar_dist.training.metrics import read_rows
from aar_dist.training.progress import Progress
from aar_dist.training.ranks import Ranks

BATCH = 4
INF, NAN = math.inf, math.nan


class Watcher:
    """A tracker that remembers."""

    def __init__(self):
        self.alerts = []

    def alert(self, title, text, level="warn"):
        self.alerts.append((title, text, level))


def origins(position, size):
    """Every third segment is of recording ``bad``."""
    return [
        Origin("cows", f"s{at % 5}", "bad" if at % 3 == 0 else f"good_{at}", "acc", float(at))
        for at in range(position, position + size)
    ]


class Run:
    """Steps of one rank; in those of ``broken`` the segments of ``bad`` are not finite."""

    def __init__(self, folder, *flags, start=0, tracker=None):
        config = load(SCHEMA, [f"--train.batch_size={BATCH}", "--health.spike_window=8", *flags])
        self.folder, self.tracker = folder, tracker or Watcher()
        self.metrics, events = folder / "metrics.jsonl", folder / "events.jsonl"
        progress = Progress(
            **{**Progress.start("x", DataConfig(), 1).to_dict(), "step": start, "position": start * BATCH}
        )
        rows = [row for row in read_rows(self.metrics) if row["step"] <= start]
        self.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.progress = progress
        self.health = Health(
            config,
            Console(Ranks(0, 1, 0, 1), 100),
            origins,
            events=Events(events, self.tracker, told=cut_back(events, start)),
            progress=progress,
            rows=rows,
        )

    def go(self, until, broken=(), losses=None):
        for step in range(self.progress.step + 1, until + 1):
            at = range(self.progress.position, self.progress.position + BATCH)
            bad = [step in broken and i % 3 == 0 for i in at]
            for half, first in ((slice(0, 2), True), (slice(2, 4), False)):
                loss = torch.tensor([INF if b else 1.0 for b in bad[half]])
                values = torch.tensor([1e38 if b else 2.0 for b in bad[half]])[:, None, None].expand(2, 5, 3)
                self.health.micro(SimpleNamespace(values=values), {"loss": loss}, first=first)
            self.progress = self.progress.advance(BATCH, applied=step not in broken)
            row = {"step": step, "loss": 1.0 + step % 5 / 100 if losses is None else losses[step]}
            row |= self.health.looked_at(row)
            with open(self.metrics, "a") as file:
                file.write(json.dumps(row) + "\n")
            self.health.stepped(self.progress, applied=step not in broken)
        return self

    def events(self):
        return [{k: v for k, v in row.items() if k != "time"} for row in read_rows(self.folder / "events.jsonl")]


def test_a_step_that_was_left_out_is_explained(tmp_path, capsys):
    run = Run(tmp_path).go(3, broken={2})
    (event,) = run.events()
    assert (event["kind"], event["step"], event["n_broken"], event["n_segments"]) == ("skipped", 2, 1, 4)
    (segment,) = event["segments"]
    assert segment == {
        "dataset": "cows", "subject": "s1", "recording": "bad", "sensor": "acc", "start_s": 6.0,
        "loss": None, "peak": pytest.approx(1e38),
    }  # fmt: skip
    said = capsys.readouterr().err
    assert "step 2 was left out: the loss of 1 of 4 segments is not finite: cows/bad acc at 6.00 s (subject s1" in said
    assert [level for *_, level in run.tracker.alerts] == ["warn"]


def test_a_long_row_is_told_now_and_then(tmp_path, capsys):
    run = Run(tmp_path, "--train.max_skipped_steps=99").go(30, broken=range(1, 31))
    told = [line.split()[2] for line in capsys.readouterr().err.splitlines()]
    assert told == ["1", "2", "3", "10", "20", "30"]
    assert len(run.events()) == 30


def test_too_many_in_a_row_end_the_run_with_the_worst_recording(tmp_path):
    run = Run(tmp_path, "--train.max_skipped_steps=3")
    with pytest.raises(ConfigError, match=r"3 steps in a row .* worst: cows/bad acc in 3 of 3; look for damaged"):
        run.go(9, broken={2, 4, 5, 6})
    assert run.progress.step == 6
    assert [event["kind"] for event in run.events()] == ["skipped"] * 4 + ["gave_up"]
    assert len(run.tracker.alerts) == 2  # of a row of steps the first


@pytest.mark.parametrize("saved", [3, 5])
def test_a_resumed_run_says_and_counts_the_same(tmp_path, saved):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    losses = {step: 50.0 if step == 12 else 1.0 + step % 5 / 100 for step in range(1, 40)}
    left_out = {4, 5, 6, 15}
    Run(whole).go(14, left_out, losses)
    tracker = Watcher()
    Run(broken, tracker=tracker).go(13, left_out, losses)
    told = list(tracker.alerts)
    Run(broken, start=saved, tracker=tracker).go(14, left_out, losses)
    assert [event["kind"] for event in Run(whole, start=14).events()] == ["skipped"] * 3 + ["spike"]
    assert Run(broken, start=14).events() == Run(whole, start=14).events()
    assert read_rows(broken / "metrics.jsonl") == read_rows(whole / "metrics.jsonl")
    assert tracker.alerts == told  # nobody is alerted twice
    limit = "--train.max_skipped_steps=3"
    with pytest.raises(ConfigError, match="3 steps in a row"):
        Run(broken, limit, start=saved).go(14, left_out, losses)


def segments(*losses, peaks=None):
    values = torch.tensor(peaks or [1.0] * len(losses))[:, None, None]
    return look([torch.tensor(losses)], [values], lambda: origins(0, len(losses)))


def test_a_segment_with_nothing_to_score_is_no_suspect():
    defined = torch.tensor([True, True, True, False])
    loss = told(torch.tensor([1.0, NAN, INF, NAN]), defined)
    assert loss.tolist()[:3] == [1.0, INF, INF]
    assert loss[3].isnan()
    found = segments(*loss.tolist(), peaks=[1.0, 3.0, 7.0, 9.0])
    assert [segment["peak"] for segment in found.segments] == [7.0, 3.0]
    assert (found.n_segments, found.n_broken) == (4, 2)


def test_without_a_suspect_the_largest_loss_is_told():
    found = merged([segments(1.0, NAN), segments(3e37, 2.0), segments(NAN, NAN)])
    assert found.n_broken == 0
    assert "the largest, 3e+37, is of cows/bad acc at 0.00 s" in found.text


def test_ranks_findings_are_one_the_largest_values_first():
    found = merged([segments(1.0, 5.0), segments(INF, INF, peaks=[2.0, 8.0]), segments(INF, peaks=[4.0])])
    assert [segment["peak"] for segment in found.segments] == [8.0, 4.0, 2.0]
    assert (found.n_segments, found.n_broken) == (5, 3)
    many = merged([Finding(10, 10, found.segments)] * 3)
    assert "30 of 30 segments are not finite" in many.text
    assert many.text.endswith("and 27 more")


def test_origins_are_those_of_the_batches(shard_set):
    data = DataConfig(shards=[str(shard_set)], segment_duration=1.0, max_window_length=50, lanes=16)
    for rank in (0, 1):
        with open_stream(data, "train", rank, 2, origins=True) as stream:
            batches = stream.batches(64, 32, 8)
            for position in (64, 96, 128):
                assert stream.origins_at(position, 32) == next(batches).origin + next(batches).origin


def heights(losses, window=16, sigma=6.0):
    spikes = Spikes(window, sigma)
    return {step: height for step, loss in enumerate(losses) if (height := spikes.see(loss)) is not None}


CALM = [1.0 + (i * 7 % 10) / 100 for i in range(200)]


def test_a_spike_is_told_once():
    assert heights(CALM) == {}
    assert list(heights([*CALM[:50], 9.0, 8.0, *CALM[52:]])) == [50]
    assert list(heights(CALM[:50] + [9.0] * 150)) == [50]  # a new level is no second spike
    assert list(heights([*CALM[:50], 9.0, *CALM[51:120], 9.0, *CALM[121:]])) == [50, 120]


def test_what_is_no_spike():
    assert heights([9.0, *CALM[:5], 9.0]) == {}  # the window is not full
    assert heights([*CALM[:50], NAN, None, *CALM[52:]]) == {}
    assert heights([1.0] * 50 + [1.0 + 1e-6] + [1.0] * 50) == {}  # rounding
    assert heights([5 / (1 + i / 10) for i in range(200)]) == {}  # a loss that falls
    assert heights([*CALM[:50], 9.0, *CALM[51:]], sigma=0.0) == {}


@pytest.mark.parametrize("at", [0, 10, 17, 51, 55, 120])
def test_spikes_follow_from_the_rows_before(at):
    losses = [*CALM[:50], 9.0, 9.0, 9.0, *CALM[53:]]
    spikes = Spikes(16, 6.0)
    spikes.replay([{"step": i, "loss": loss} for i, loss in enumerate(losses[:at])] + [{"step": at, "val/loss": 3.0}])
    found = {at + i: h for i, loss in enumerate(losses[at:]) if (h := spikes.see(loss)) is not None}
    assert found == {step: height for step, height in heights(losses).items() if step >= at}
