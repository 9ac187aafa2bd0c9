"""Scales, lanes and what lies beside a run."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.report.animals import closed_up
from aar_dist.report.numbers import interval, listed, number
from aar_dist.report.shard_sets import found_from
from aar_dist.report.stored import stored_model
from aar_dist.report.svg import Scale, line, path, thinned

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


@given(VALUES, st.booleans())
def test_a_scale_holds_all_its_values_in_order(values, log):
    values = sorted(abs(v) + 1e-3 for v in values) if log else sorted(values)
    scale = Scale.of(values, log=log)
    places = [scale.at(v) for v in values]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 100


@given(VALUES)
def test_ticks_are_few_round_and_inside(values):
    scale = Scale.of(values)
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 6
    for tick in ticks:
        assert 0 <= tick.at <= 100
        assert tick.at == pytest.approx(scale.at(float(tick.text.replace("−", "-"))), abs=1)


def test_a_logarithmic_scale_has_its_decades():
    assert [t.text for t in Scale.of([0.01, 10.0], log=True).ticks()] == ["0.01", "0.1", "1", "10"]


def test_a_title_is_escaped():
    assert "<title>&lt;b&gt;&#34;</title>" in path("M0 0", "dot", '<b>"')


def test_a_thinned_line_keeps_its_mean():
    points = [(float(k), float(k % 7)) for k in range(1400)]
    few = thinned(points, 100)
    assert len(few) == 100
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))
    assert line([(1.0, 2.0), (3.5, 4.0)]) == "M1 2L3.5 4"


def test_long_pauses_are_cut_and_short_ones_are_not():
    start = np.array([0.0, 10.0, 25.0, 1000.0, 0.0])
    recording = np.array(["a", "a", "a", "a", "b"])
    n = 200  # so that a gap is 0.006 * 205 * 10 s = 12.3 s
    start = np.concatenate((start, 10.0 * np.arange(1, n + 1)))
    recording = np.concatenate((recording, np.repeat("b", n)))
    begins, ends = closed_up({"start_s": start, "stop_s": start + 10.0, "recording": recording})
    assert begins[:3].tolist() == [0.0, 10.0, 25.0]
    assert begins[3] == pytest.approx(35.0 + 12.3)
    assert begins[4] == pytest.approx(ends[3] + 12.3)
    assert begins[5] == pytest.approx(ends[4])


def test_numbers_are_short():
    assert [number(v) for v in (0.12345, 1.0, 12.345, 1234.5, -0.5, None, float("nan"), True)] == [
        "0.123", "1.000", "12.35", "1,234", "−0.500", "–", "–", "–"
    ]  # fmt: skip
    assert interval({"low": 0.1, "high": None}) == ""
    assert listed(["a"]) == "a"
    assert listed(list("abcdefgh"), 3) == "a, b, c and 5 more"


def test_a_relative_path_is_looked_for_above_the_run(tmp_path):
    run, shards = tmp_path / "out" / "run", tmp_path / "out" / "shards"
    run.mkdir(parents=True)
    shards.mkdir()
    assert found_from("out/shards", run) == shards
    assert str(found_from("out/nothing", run)) == "out/nothing"


def test_the_store_is_asked_for_its_hashes(tmp_path):
    manifest = tmp_path / "store" / "models" / "herd" / "3" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"shards": "ab", "files": {}}))
    store = str(tmp_path / "store")
    assert stored_model("store://herd@3", store, tmp_path)["shards"] == "ab"
    for reference in ("store://herd@4", "store://herd@latest", "run/model", "store://../herd@3", None):
        assert stored_model(reference, store, tmp_path) == {}
    assert stored_model("store://herd@3", "s3://bucket/store", tmp_path) == {}
    manifest.write_text("{")
    assert stored_model("store://herd@3", store, tmp_path) == {}
