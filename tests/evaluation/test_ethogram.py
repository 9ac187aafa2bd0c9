"""Steps, runs and days: every recorded second once, whatever the windows."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aar_dist.evaluation.ethogram import Runs, Steps, averaged, bridged, runs_of, stretches
from aar_dist.evaluation.ethogram_days import Ethogram, budget, days, lanes
from aar_dist.evaluation.ethogram_files import _picture
from aar_dist.evaluation.predict_windows import places

K = 3


@st.composite
def slid(draw):
    """Windows over a recording with gaps: start, stop, probabilities, recorded, the samples covered."""
    n, window = draw(st.integers(1, 60)), draw(st.integers(1, 20))
    start = places(n, min(window, n), draw(st.floats(0.3, window)))
    stop = np.maximum(start + min(window, n), np.append(start[1:], 0))
    present = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    keep = np.array([present[a:b].any() for a, b in zip(start, stop, strict=True)], bool)
    said = np.random.default_rng(draw(st.integers(0, 99))).dirichlet(np.ones(K), len(start))
    recorded = bridged(stretches(present), draw(st.integers(1, 5)))
    covered = np.zeros(n, bool)
    for a, b in recorded:
        covered[a:b] = True
    seen = np.zeros(n, bool)
    for a, b in zip(start[keep], stop[keep], strict=True):
        seen[a:b] = True
    return start[keep], stop[keep], said[keep], recorded, covered & seen


def spread(n: int, start, stop, values, empty=np.nan) -> np.ndarray:
    """A value for each sample; asserts that none has two."""
    out = np.full((n, *np.shape(values)[1:]), empty, np.float64)
    times = np.zeros(n, int)
    for a, b, value in zip(start, stop, values, strict=True):
        out[a:b] = value
        times[a:b] += 1
    assert times.max(initial=0) <= 1
    return out


@given(slid())
def test_a_step_is_the_mean_of_the_windows_over_it(case):
    start, stop, said, recorded, covered = case
    steps = averaged(start, stop, said, recorded)
    found = spread(len(covered), steps.start, steps.stop, steps.probability)
    assert np.array_equal(np.isfinite(found).all(1), covered)
    for t in np.flatnonzero(covered):
        over = (start <= t) & (t < stop)
        np.testing.assert_allclose(found[t], said[over].mean(0), rtol=1e-12)


@given(slid(), st.sampled_from([0.0, 2.0, 7.0, 30.0]))
def test_runs_cover_what_was_predicted_once(case, min_samples):
    start, stop, said, recorded, covered = case
    steps = averaged(start, stop, said, recorded)
    runs = runs_of(steps, min_samples)
    label = spread(len(covered), runs.start, runs.stop, runs.label)
    assert np.array_equal(np.isfinite(label), covered)
    assert np.all(runs.stop > runs.start)
    touch = runs.start[1:] == runs.stop[:-1]
    assert np.all(runs.label[1:][touch] != runs.label[:-1][touch])
    probability = spread(len(covered), steps.start, steps.stop, steps.probability)
    for a, b, k, confidence in zip(runs.start, runs.stop, runs.label, runs.confidence, strict=True):
        assert confidence == pytest.approx(probability[a:b, k].mean())
    for i in np.flatnonzero(runs.stop - runs.start < min_samples):
        alone = (i == 0 or not touch[i - 1]) and (i == len(runs) - 1 or not touch[i])
        assert alone, "a short run that has a neighbour"
    if min_samples == 0:
        assert np.array_equal(label[covered], probability[covered].argmax(1))


def steps(*rows: tuple[int, int, tuple[float, ...]]) -> Steps:
    start, stop, probability = zip(*rows, strict=True)
    return Steps(np.array(start), np.array(stop), np.array(probability))


def test_a_short_run_goes_to_the_neighbour_that_is_more_probable_over_it():
    made = steps((0, 10, (0.8, 0.1, 0.1)), (10, 12, (0.2, 0.5, 0.3)), (12, 30, (0.0, 0.1, 0.9)))
    runs = runs_of(made, 5)
    assert runs.label.tolist() == [0, 2]
    assert runs.stop.tolist() == [10, 30]
    assert runs.confidence == pytest.approx([0.8, (2 * 0.3 + 18 * 0.9) / 20])
    assert len(runs_of(made, 2)) == 3, "as long as asked for is long enough"
    assert len(runs_of(made, 0.2 * 10 + 1e-12)) == 3, "in floats, too"


def test_what_stands_on_both_sides_becomes_one():
    made = steps((0, 10, (0.9, 0.1)), (10, 11, (0.4, 0.6)), (11, 20, (0.7, 0.3)))
    assert runs_of(made, 2).stop.tolist() == [20]


def test_the_shortest_goes_first_and_gaps_are_not_crossed():
    made = steps((0, 3, (0.9, 0.1)), (3, 5, (0.1, 0.9)), (5, 8, (0.9, 0.1)), (20, 21, (0.2, 0.8)))
    runs = runs_of(made, 4)
    assert (runs.start.tolist(), runs.stop.tolist(), runs.label.tolist()) == ([0, 20], [8, 21], [0, 1])


def test_nothing_predicted_is_no_run():
    nothing = averaged(np.zeros(0, int), np.zeros(0, int), np.zeros((0, K)), np.zeros((0, 2), int))
    assert len(runs_of(nothing, 3)) == 0


def test_gaps_shorter_than_asked_for_are_bridged():
    recorded = np.array([[0, 4], [5, 9], [12, 20]])
    assert bridged(recorded, 3).tolist() == [[0, 9], [12, 20]]
    assert bridged(recorded, 1).tolist() == recorded.tolist()


def ethogram(start_time: str | None, runs: Runs, *, subject="1", duration_s=None, **more) -> Ethogram:
    stop_s = runs.stop.astype(float)
    return Ethogram(
        dataset="herd", subject=subject, recording="r", start_time=start_time, **{"source": "", **more},
        duration_s=float(stop_s[-1]) if duration_s is None else duration_s,
        start_s=runs.start.astype(float), stop_s=stop_s, label=runs.label, value=runs.confidence,
    )  # fmt: skip


def runs(*rows: tuple[int, int, int]) -> Runs:
    start, stop, label = (np.array(column) for column in zip(*rows, strict=True))
    return Runs(start, stop, label, np.ones(len(label)))


def test_a_calendar_day_ends_at_midnight():
    made = [ethogram("2024-05-13T23:00:00+02:00", runs((0, 1800, 0), (1800, 5400, 1), (5400, 7200, 0)))]
    first, second = days(made)
    assert (first.name, second.name) == ("2024-05-13", "2024-05-14")
    assert first.start_s.tolist() == [82800, 84600]
    assert first.stop_s.tolist() == [84600, 86400]
    assert second.stop_s.tolist() == [1800, 3600]
    rows = {(r["day"], r["behaviour"]): (r["seconds"], r["share"]) for r in budget([first, second], ["rest", "walk"])}
    assert rows["2024-05-13", "walk"] == (1800, 0.5)
    assert rows["2024-05-14", "rest"] == (1800, 0.5)
    assert [lane.name for lane in lanes([first, second])] == ["1 · 2024-05-13", "1 · 2024-05-14"]


def test_what_ends_at_midnight_begins_no_other_day():
    (day,) = days([ethogram(None, runs((0, 60, 0)), duration_s=60.0).by(86_340.0, 1 + 1e-11)])
    assert day.name == "day 1"


def test_without_a_start_days_count_recorded_time():
    made = [ethogram(None, runs((0, 80_000, 0))), ethogram(None, runs((100, 10_000, 1)), duration_s=10_000.0)]
    first, second = days(made)
    assert (first.name, second.name) == ("day 1", "day 2")
    assert first.start_s.tolist() == [0, 80_100]
    assert first.stop_s.tolist() == [80_000, 86_400]
    assert second.stop_s.tolist() == [3600]


def test_a_gap_that_a_table_tells_is_a_gap_of_the_day():
    made = [
        ethogram(None, runs((0, 100, 0)), source="a.csv"),
        ethogram(None, runs((0, 50, 1)), source="a.csv", offset_s=86_000.0),
        ethogram(None, runs((0, 500, 0)), source="b.csv"),
        ethogram(None, runs((0, 60, 1)), source="b.csv", offset_s=499.0),  # its clock says less than its samples
    ]
    first, second = days(made)
    assert first.start_s.tolist() == [0, 86_000, 86_050]
    assert first.stop_s.tolist() == [100, 86_050, 86_400]
    assert (second.start_s.tolist(), second.stop_s.tolist()) == ([0, 150], [150, 210])


def test_lanes_of_two_clocks_are_told_apart():
    made = [ethogram("2024-05-13T08:00:00", runs((0, 60, 0))), ethogram(None, runs((0, 60, 0)), subject="2")]
    told = [_picture(days(of), ["rest"]).axes[0] for of in (made, made[:1], made[1:])]
    assert "lanes of a date count from midnight" in told[0].get_title(loc="left")
    assert [axes.get_title(loc="left") for axes in told[1:]] == ["", ""]
    assert [axes.get_xlabel() for axes in told[1:]] == ["time of day", "time [s]"]


@given(slid(), st.sampled_from([None, "2024-05-13T23:59:40", "2024-02-28T23:59:59.500000Z"]))
def test_the_budget_sums_to_the_covered_time(case, start_time):
    start, stop, said, recorded, covered = case
    found = runs_of(averaged(start, stop, said, recorded))
    if not len(found):
        return
    made = [ethogram(start_time, found, duration_s=float(len(covered)))] * 2
    rows = budget(days(made), [f"c{k}" for k in range(K)])
    assert sum(row["seconds"] for row in rows) == pytest.approx(2 * covered.sum())
    shares = {}
    for row in rows:
        shares[row["day"]] = shares.get(row["day"], 0) + row["share"]
    assert list(shares.values()) == pytest.approx([1.0] * len(shares))


@given(st.integers(1, 500), st.integers(1, 50), st.floats(0.5, 50))
def test_windows_leave_nothing_out(n, window, hop):
    window = min(window, n)
    start = places(n, window, min(hop, window))
    assert start[0] == 0
    assert start[-1] == n - window
    assert np.all(np.diff(start) <= window + 1), "rounding may leave a sample between; windows then reach to the next"


@given(st.integers(1, 900), st.integers(1, 60), st.floats(0.5, 90), st.integers(1, 40))
def test_steps_between_meet_the_windows_of_training(n, window, hop, steps):
    training = np.rint(np.arange(n) * hop)
    start = places(n, min(window, n), hop, steps)
    assert np.isin(training[training <= n - window], start).all()
    assert len(start) <= max(0, n - window) / hop * steps + 3


def test_a_step_below_a_sample_is_a_window_at_every_sample():
    tracemalloc.start()
    start = places(60, 40, 1.0, 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert start.tolist() == list(range(21))
    assert peak < 1e6
