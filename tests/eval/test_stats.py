"""Intervals, tests and power, against closed forms, brute force and the clock."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from eval.scoring.stats import (
    bootstrap_f1,
    bootstrap_intervals,
    compare_counts,
    f1_of,
    figures_of,
    interval,
    p_of_bootstrap,
    p_of_shuffles,
    randomise,
    resample_weights,
    resolvable_differences,
    used_tasks,
)

TASKS = ("chemicals", "diseases", "relations")


def invent(documents: int, seed: int, rate: float = 0.8) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    gold = {task: chance.integers(0, 9, documents) for task in TASKS}
    tp = {task: chance.binomial(gold[task], rate) for task in TASKS}
    return {task: np.stack([tp[task], chance.poisson(1, documents), gold[task] - tp[task]], axis=1) for task in TASKS}


def test_figures_by_hand():
    figures = figures_of(np.array([[3, 1, 2], [0, 0, 0], [0, 5, 0]]))
    assert figures["precision"].tolist() == [0.75, 0, 0]
    assert figures["recall"].tolist() == [0.6, 0, 0]
    assert figures["f1"].tolist() == pytest.approx([6 / 9, 0, 0])


def test_weights_draw_as_many_documents_as_there_are():
    weights = resample_weights(7, 50)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == resample_weights(7, 50)).all()


def test_resamples_are_those_of_a_loop():
    counts, weights = invent(12, 1)["diseases"], resample_weights(12, 20)
    looped = [f1_of(sum(counts[i] * times for i, times in enumerate(row))) for row in weights]
    assert bootstrap_f1(counts, weights) == pytest.approx(interval(np.array(looped)))


def test_every_figure_has_an_interval_around_its_value():
    counts = invent(200, 2)
    intervals = bootstrap_intervals(counts)
    assert set(intervals) == {*TASKS, "micro", "macro"}
    for task in TASKS:
        observed = figures_of(counts[task].sum(axis=0))
        for figure, (low, high) in intervals[task].items():
            assert low < observed[figure] < high
            assert high - low < 0.2
    assert intervals["chemicals"]["f1"] == pytest.approx(bootstrap_f1(counts["chemicals"]))
    micro = figures_of(sum(counts.values()).sum(axis=0))["f1"]
    assert intervals["micro"]["f1"][0] < micro < intervals["micro"]["f1"][1]


def test_interval_shrinks_with_the_root_of_documents():
    few, many = (np.diff(bootstrap_f1(invent(n, 3)["chemicals"]))[0] for n in (100, 1600))
    assert few / many == pytest.approx(4, rel=0.3)


@pytest.mark.slow
def test_interval_covers_the_truth_19_times_in_20():
    truth = f1_of(invent(200_000, 4)["chemicals"].sum(axis=0))
    covered = 0
    for seed in range(200):
        low, high = bootstrap_f1(invent(100, 1000 + seed)["chemicals"], resample_weights(100, 300))
        covered += low <= truth <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_macro_is_over_tasks_in_use():
    counts = invent(10, 5) | {"relations": np.zeros((10, 3), int)}
    assert used_tasks(counts) == ["chemicals", "diseases"]
    assert used_tasks({"chemicals": np.zeros((2, 3))}) == ["chemicals"]


def test_a_system_does_not_differ_from_itself():
    counts = invent(50, 6)
    for row in compare_counts(counts, counts, shuffles=100).values():
        assert row["difference"] == 0
        assert row["p_bootstrap"] == row["p_randomisation"] == 1
        assert row["resolvable"] is row["ci95"] is None


def test_a_plain_difference_is_found_and_sides_mirror():
    worse, better = invent(200, 7, rate=0.6), invent(200, 7, rate=0.9)
    there, back = compare_counts(worse, better, shuffles=999), compare_counts(better, worse, shuffles=999)
    for name, row in there.items():
        assert row["p_bootstrap"] < 0.01
        assert row["p_randomisation"] < 0.01
        assert row["ci95"][0] > 0
        assert row["difference"] == pytest.approx(-back[name]["difference"])
        assert row["p_randomisation"] == back[name]["p_randomisation"]


def test_randomisation_is_the_exact_test():
    """Against all 2^8 ways in which 8 documents can change sides."""
    a, b = ({"chemicals": invent(8, seed)["chemicals"]} for seed in (8, 9))
    observed = f1_of(b["chemicals"].sum(axis=0)) - f1_of(a["chemicals"].sum(axis=0))
    all_swaps = np.array(list(itertools.product([0, 1], repeat=8)))
    moved = all_swaps @ (b["chemicals"] - a["chemicals"])
    differences = f1_of(b["chemicals"].sum(axis=0) - moved) - f1_of(a["chemicals"].sum(axis=0) + moved)
    exact = (np.abs(differences) >= abs(observed) - 1e-12).mean()
    assert p_of_shuffles(observed, randomise(a, b, ["chemicals"])["chemicals"]) == pytest.approx(exact, abs=0.02)


def test_p_values_are_never_zero():
    assert p_of_bootstrap(np.ones(999)) == pytest.approx(2 / 1000)
    assert p_of_shuffles(1.0, np.zeros(999)) == pytest.approx(1 / 1000)


@pytest.mark.slow
def test_two_equal_systems_differ_one_time_in_twenty():
    found = [compare_counts(invent(60, s), invent(60, 5000 + s), shuffles=400)["micro"] for s in range(200)]
    for p in ("p_bootstrap", "p_randomisation"):
        assert sum(row[p] < 0.05 for row in found) / len(found) <= 0.10


@pytest.mark.slow
def test_power_is_what_the_note_says():
    """Systems that differ by the resolvable difference are told apart in about 80 of 100 tests."""
    documents = 150
    limit = resolvable_differences({"chemicals": invent(documents, 1)["chemicals"]})["chemicals"]
    f1 = {rate: float(f1_of(invent(20_000, 2, rate)["chemicals"].sum(axis=0))) for rate in np.arange(0.6, 0.8, 0.01)}
    top = float(f1_of(invent(20_000, 2, 0.8)["chemicals"].sum(axis=0)))
    rate = min(f1, key=lambda rate: abs(top - f1[rate] - limit))
    found = 0
    for seed in range(100):
        worse, better = invent(documents, seed, rate), invent(documents, 900 + seed)
        row = compare_counts({"c": worse["chemicals"]}, {"c": better["chemicals"]}, shuffles=10)["c"]
        found += row["p_bootstrap"] < 0.05
    assert 68 <= found <= 92


def test_500_documents_1000_resamples_take_under_2_seconds():
    counts = invent(500, 10)
    started = time.process_time()  # so that other programs do not count
    bootstrap_intervals(counts)
    assert time.process_time() - started < 2
