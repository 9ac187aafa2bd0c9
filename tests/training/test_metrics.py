"""Means over segments and data sets, and a metrics file that forgets what a resumed run repeats."""

import json
import math

import pytest
import torch

from aar_dist.models.transformer import AAREncoder
from aar_dist.objectives.masked import MaskedReconstruction
from aar_dist.training.footprint import describe
from aar_dist.training.metrics import Clock, Meter, MetricsFile, read_rows, trim

NAN = math.nan


def test_means_for_each_data_set_leave_out_what_is_undefined():
    meter = Meter(("a", "b", "c"))
    meter.add({"loss": torch.tensor([1.0, NAN, 3.0])}, torch.tensor([0, 0, 1]))
    meter.add({"loss": torch.tensor([5.0])}, torch.tensor([0]))
    assert meter.take() == {"loss": 3.0, "loss/a": 3.0, "loss/b": 3.0}
    assert meter.take() == {}


def test_weights_leave_out_padding():
    meter = Meter(("a",))
    meter.add({"loss": torch.tensor([1.0, 9.0])}, torch.tensor([0, 0]), torch.tensor([1.0, 0.0]))
    assert meter.take() == {"loss": 1.0, "loss/a": 1.0}


def test_nothing_defined_is_nan():
    meter = Meter(("a",))
    meter.add({"loss": torch.tensor([NAN])}, torch.tensor([0]))
    row = meter.take()
    assert math.isnan(row["loss"])
    assert "loss/a" not in row


def test_the_mean_does_not_depend_on_how_a_batch_is_cut():
    losses, dataset = torch.rand(64), torch.randint(0, 3, (64,))
    rows = []
    for micro in (1, 4, 64):
        meter = Meter(("a", "b", "c"))
        for i in range(0, 64, micro):
            meter.add({"loss": losses[i : i + micro]}, dataset[i : i + micro])
        rows.append(meter.take())
    assert rows[0] == pytest.approx(rows[1])
    assert rows[0] == pytest.approx(rows[2])


def test_clock(monkeypatch, segments):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    objective = MaskedReconstruction(AAREncoder(d_embedding=64, n_layers=1, max_window_length=4000))
    segments_of = describe(objective, rates_hz=(90.0, 60.0, 360.0, 30.0), max_window_length=4000)["segments"]
    flops = 5 * sum(segment["flops_forward_backward"] for segment in segments_of)
    clock = Clock(world_size=2, objective=objective, matmul_tflops=flops / 1e12)
    for _ in range(5):
        clock.trained(segments(900, 600, 3600, 300, pad_to=4000))  # at 90, 60, 360 and 30 Hz: 10 s each
    clock.waited(1.0)
    now[0] = 14.0
    clock.pause(10.0)
    told = clock.take()
    # Four seconds for five times what the matrix product could do in one: padding is in neither.
    assert told.pop("mfu") == pytest.approx(0.25)
    assert told.pop("matmul_tflops") == clock.matmul_tflops
    assert told == {"segments_per_s": 10.0, "hours_per_s": 10 * 10 / 3600, "loader_share": 0.25}
    assert clock.take()["segments_per_s"] == 0


def test_the_file_is_cut_back_to_a_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(5):
        file.write({"step": step, "loss": NAN if step == 2 else step / 3})
    file.close()
    with open(path, "a") as cut:
        cut.write('{"step": 5, "lo')
    assert trim(path, 3) == 4
    rows = read_rows(path)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert rows[2]["loss"] is None
    assert rows[1]["loss"] == 1 / 3
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert trim(path, -1) == 3
    assert read_rows(path) == []
    assert trim(tmp_path / "new.jsonl", -1) == -1
