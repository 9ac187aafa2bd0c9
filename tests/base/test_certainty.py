"""Intervals over subjects, and tests between methods: against plain ones, and against what they promise."""

from itertools import product

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aar_dist.base.stats import paired
from aar_dist.base.stats.intervals import CORRELATION, ERROR, PLAIN, SHARE, interval, scale_of
from aar_dist.base.stats.ordering import auroc, orderings
from aar_dist.base.stats.tallies import class_tallies, drawn, mean_tallies, target_tallies, times_drawn, without_each


def toy(n_subjects: int, windows: int, rng, spread: float = 1.0):
    """Labels of three classes and two methods that are right equally often, more on some subjects than on others."""
    subject = np.repeat([f"s{i:02}" for i in range(n_subjects)], windows)
    truth = rng.integers(0, 3, len(subject))
    said = []
    for _ in range(2):
        skill = np.repeat(0.6 + spread * rng.uniform(-0.3, 0.3, n_subjects), windows)
        said.append(np.where(rng.random(len(subject)) < skill, truth, rng.integers(0, 3, len(subject))))
    return subject, truth, *said


def test_draws_are_of_whole_subjects():
    rng = np.random.default_rng(0)
    subject, truth, said, _ = toy(6, 70, rng)
    got = drawn(class_tallies(subject, truth, said, 3), 40, seed=3)["macro_f1"]
    for value, times in zip(got, times_drawn(6, 40, 3), strict=True):
        at = np.concatenate([np.flatnonzero(subject == f"s{i:02}") for i in np.repeat(np.arange(6), times)])
        assert value == pytest.approx(sk.f1_score(truth[at], said[at], average="macro"))
    t, p = rng.normal(80, 10, 420), rng.normal(80, 10, 420)
    got = drawn(target_tallies(subject, t, p), 20, seed=3)
    for k, times in enumerate(times_drawn(6, 20, 3)):
        at = np.concatenate([np.flatnonzero(subject == f"s{i:02}") for i in np.repeat(np.arange(6), times)])
        assert got["r"][k] == pytest.approx(np.corrcoef(t[at], p[at])[0, 1])
        assert got["r2"][k] == pytest.approx(sk.r2_score(t[at], p[at]))
    assert times_drawn(6, 5000, 1).sum(1).tolist() == [6] * 5000
    assert times_drawn(6, 5000, 1).mean() == 1


def test_the_order_of_windows_does_not_matter():
    rng = np.random.default_rng(1)
    subject, truth, one, other = toy(7, 30, rng)
    at = rng.permutation(len(subject))
    here = class_tallies(subject, truth, one, 3), class_tallies(subject, truth, other, 3)
    there = class_tallies(subject[at], truth[at], one[at], 3), class_tallies(subject[at], truth[at], other[at], 3)
    assert np.array_equal(drawn(here[0])["macro_f1"], drawn(there[0])["macro_f1"])
    assert paired.swap_test(*here) == paired.swap_test(*there)


def test_two_methods_share_the_draws():
    subject, y = np.repeat(["x", "y", "z"], 30), np.tile([0, 1], 45)
    better, worse = y.copy(), y.copy()
    better[:3], worse[:9] = 1 - y[:3], 1 - y[:9]
    a, b = (drawn(class_tallies(subject, y, p, 2))["accuracy"] for p in (better, worse))
    assert (a >= b).all(), "in every draw, though the intervals overlap"


def test_an_interval_is_student_s_of_the_subjects():
    """Of subjects of one size the score is their mean, and a plain interval is known."""
    rng = np.random.default_rng(2)
    each = rng.normal(3, 1, 12)
    tallies = mean_tallies(np.repeat([f"s{i:02}" for i in range(12)], 5), x=np.repeat(each, 5))
    found = interval(each.mean(), drawn(tallies, 20_000)["x"], 12, PLAIN)
    known = stats.t.interval(0.95, 11, each.mean(), stats.sem(each))
    assert (found["low"], found["high"]) == pytest.approx(known, abs=0.02)


@given(st.floats(0.01, 0.99), st.floats(0.001, 0.3), st.integers(2, 40))
def test_a_share_stays_a_share_and_an_error_above_zero(value, error, n):
    draws = value + error * np.array([-1.0, 1.0] * 10)
    for scale, low, high in ((SHARE, 0, 1), (ERROR, 0, np.inf), (CORRELATION, -1, 1)):
        found = interval(value, draws, n, scale)
        assert low <= found["low"] <= value <= found["high"] <= high


def test_what_has_no_interval():
    draws = np.array([0.1, 0.2, np.nan])
    for value, of, n in ((None, draws, 5), (0.2, draws, 1), (0.2, draws[2:], 5)):
        assert interval(value, of, n, SHARE) == {"low": None, "high": None}
    assert interval(1.0, np.ones(9), 5, SHARE) == {"low": 1.0, "high": 1.0}
    assert (scale_of("macro_f1"), scale_of("mae"), scale_of("r")) == (SHARE, ERROR, CORRELATION)


@pytest.mark.parametrize(("n_subjects", "least"), [(5, 0.9), (10, 0.91), (20, 0.92)])
def test_an_interval_holds_the_truth_as_often_as_it_says(n_subjects, least):
    """The old quantiles of the draws held it 83, 88 and 91 times of a hundred."""
    rng, held = np.random.default_rng(n_subjects), 0
    y, subject = np.tile([0, 1], 30 * n_subjects), np.repeat([f"s{i:02}" for i in range(n_subjects)], 60)
    for _ in range(250):
        right = rng.random(len(y)) < np.repeat(rng.beta(7, 3, n_subjects), 60)
        tallies = class_tallies(subject, y, np.where(right, y, 1 - y), 2)
        found = interval(right.mean(), drawn(tallies, 300)["accuracy"], n_subjects, SHARE)
        held += found["low"] <= 0.7 <= found["high"]
    assert least < held / 250 < 0.99


def test_all_swaps_are_tried():
    rng = np.random.default_rng(4)
    subject, truth, one, other = toy(5, 20, rng)
    got = paired.swap_test(class_tallies(subject, truth, one, 3), class_tallies(subject, truth, other, 3))
    found, beyond = None, 0
    for ways in product([False, True], repeat=5):
        swap = np.repeat(ways, 20)
        a, b = np.where(swap, other, one), np.where(swap, one, other)
        value = abs(sk.f1_score(truth, a, average="macro") - sk.f1_score(truth, b, average="macro"))
        found = value if found is None else found
        beyond += value >= found - 1e-12
    assert got["macro_f1"].p == beyond / 32
    assert got["macro_f1"].name == "all swaps of 5 subjects"


@pytest.mark.parametrize("n_subjects", [8, 16])
def test_p_is_uniform_where_two_methods_are_alike(n_subjects, monkeypatch):
    monkeypatch.setattr(paired, "SAMPLED", 400)
    rng, ps = np.random.default_rng(n_subjects), {"accuracy": [], "macro_f1": []}
    for _ in range(250):
        subject, truth, one, other = toy(n_subjects, 24, rng)
        found = paired.swap_test(class_tallies(subject, truth, one, 3), class_tallies(subject, truth, other, 3))
        for name, of in ps.items():
            of.append(found[name].p)
    assert stats.kstest(ps["macro_f1"], "uniform").pvalue > 0.01
    # Accuracies of few windows tie, which makes p larger: it may be careful, never rash.
    assert stats.kstest(ps["accuracy"], "uniform", alternative="greater").pvalue > 0.05
    assert all(np.mean(np.array(of) <= 0.05) <= 0.09 for of in ps.values())


def test_a_test_is_the_same_from_either_side_and_sees_what_is_there():
    rng = np.random.default_rng(5)
    subject, truth, one, other = toy(16, 30, rng, spread=0.2)
    worse = np.where(rng.random(len(one)) < 0.4, rng.integers(0, 3, len(one)), one)
    a, b, c = (class_tallies(subject, truth, said, 3) for said in (one, other, worse))
    assert paired.swap_test(a, b) == paired.swap_test(b, a)
    assert paired.swap_test(a, c)["macro_f1"].p < 0.001
    assert paired.swap_test(a, a)["macro_f1"].p == 1.0
    assert paired.least_p(5) == 0.0625, "of five subjects nothing can be told"


def test_seeds_do_not_count_as_subjects():
    rng = np.random.default_rng(6)
    subject, truth, one, other = toy(6, 30, rng)
    tallies = class_tallies(subject, truth, one, 3), class_tallies(subject, truth, other, 3)
    three = class_tallies(np.tile(subject, 3), np.tile(truth, 3), np.tile(one, 3), 3, copies=3)
    assert paired.swap_test(three, tallies[1]) == paired.swap_test(*tallies)


def test_targets_are_swapped_too():
    rng = np.random.default_rng(7)
    subject, t = np.repeat([f"s{i}" for i in range(8)], 25), rng.normal(80, 10, 200)
    good, bad = t + rng.normal(0, 2, 200), t + rng.normal(0, 9, 200)
    got = paired.swap_test(target_tallies(subject, t, good), target_tallies(subject, t, bad))
    assert {name: of.p for name, of in got.items()} == dict.fromkeys(("mae", "rmse", "r", "r2"), 2 / 2**8)


def test_signs_of_parts_are_those_of_a_plain_permutation_test():
    parts = np.array([0.3, -0.1, 0.25, 0.4, 0.05])
    known = stats.permutation_test((parts,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert paired.sign_flips(parts).p == pytest.approx(known.pvalue)
    assert paired.sign_flips(np.array([0.1, np.nan])).p is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_s_correction(ps):
    got = paired.holm(ps)
    known = [(p, c) for p, c in zip(ps, got, strict=True) if p is not None]
    assert [c for p, c in zip(ps, got, strict=True) if p is None] == [None] * ps.count(None)
    assert all(p <= c <= min(1, len(known) * p) for p, c in known)
    assert sorted(c for _, c in known) == [c for _, c in sorted(known)]
    assert paired.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_the_corrected_t_test_allows_for_train_sides_that_overlap():
    rng = np.random.default_rng(8)
    d = rng.normal(0.02, 0.03, 20)
    got = paired.resampled_t(d, test_share=0.2)
    assert got["t"] == pytest.approx(d.mean() / np.sqrt((1 / 20 + 0.25) * d.var(ddof=1)))
    assert got["p"] > stats.ttest_1samp(d, 0).pvalue
    assert paired.resampled_t([0.1], 0.2) is paired.resampled_t([0.1, 0.1], 0.2) is None


def test_an_effect_s_interval_holds_it_as_often_as_it_says():
    rng, held = np.random.default_rng(9), 0
    for _ in range(400):
        got = paired.effect(rng.normal(0.8, 1, 8))
        held += got["low"] <= 0.8 <= got["high"]
    assert 0.92 < held / 400 < 0.99
    d = np.array([0.03, 0.05, -0.01, 0.04, 0.02, 0.06])
    assert paired.effect(d)["n"] == 6
    assert paired.effect(d - d.mean())["g"] == pytest.approx(0)
    assert paired.effect([0.1, 0.2]) is paired.effect([0.1] * 5) is None
    assert paired.signed_rank(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue)
    assert paired.signed_rank([0.0, 0.0]) is None


@settings(max_examples=15)
@given(st.integers(0, 500))
def test_auroc_is_that_of_scikit_learn_for_any_draw_of_subjects(seed):
    rng = np.random.default_rng(seed)
    subject, y = np.repeat(["x", "y", "z", "w"], 15), rng.integers(0, 3, 60)
    p = rng.integers(1, 5, (60, 3)) / 10  # with ties
    found = orderings(subject, y, p)
    times = times_drawn(4, 3, seed)
    names = np.array(found.subjects)
    for row, value, each in zip(times, found.weighted(times)["auroc"], found.of_classes(times), strict=True):
        at = np.concatenate([np.flatnonzero(subject == name) for name in np.repeat(names, row)])
        here = [k for k in range(3) if 0 < (y[at] == k).sum() < len(at)]
        known = [sk.roc_auc_score(y[at] == k, p[at, k]) for k in here]
        assert each[here] == pytest.approx(known)
        assert np.isnan(each[[k for k in range(3) if k not in here]]).all()
        assert value == pytest.approx(np.mean(known))
    assert without_each(found)["auroc"].shape == (4,)
    each = [sk.roc_auc_score(y == k, p[:, k]) for k in range(3) if 0 < (y == k).sum() < 60]
    assert auroc(y, p) == pytest.approx(np.mean(each))
    assert auroc(np.zeros(5, int), p[:5]) is None
