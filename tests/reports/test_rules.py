"""Rules: they find what they are about, and say nothing on random curves."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mlflow_ipfs.training.latency import LatencyHistogram
from reports.numbers import format_number
from reports.rules import RULES, curves, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from reports.figures import Finding

    Values = NDArray[np.float64]

ROUNDS = 400
MOST_FALSE_ALARMS = 0.01


def constant(rng: np.random.Generator, count: int) -> Values:
    return 1 + 10 ** rng.uniform(-3, -0.5) * rng.normal(size=count)


def near_zero(rng: np.random.Generator, count: int) -> Values:
    return np.abs(rng.normal(size=count))


def lognormal(rng: np.random.Generator, count: int) -> Values:
    return np.exp(10 ** rng.uniform(-3, 0) * rng.normal(size=count))


def decaying(rng: np.random.Generator, count: int) -> Values:
    """Return a loss that is still falling at the end."""
    curve = 0.1 + np.exp(-np.arange(count) / (count * rng.uniform(0.25, 2)))
    return np.asarray(curve + 0.3 * 10 ** rng.uniform(-3, 0) * rng.normal(size=count))


def decaying_with_relative_noise(rng: np.random.Generator, count: int) -> Values:
    curve = 0.1 + np.exp(-np.arange(count) / (count * rng.uniform(0.25, 2)))
    return np.asarray(curve * np.exp(0.5 * 10 ** rng.uniform(-3, 0) * rng.normal(size=count)))


def heavy_tails(rng: np.random.Generator, count: int) -> Values:
    return 1 + 0.1 * rng.standard_t(5, size=count)


def small_walk(rng: np.random.Generator, count: int) -> Values:
    """Return a random walk that ends within 10% or so. One that doubles has diverged, and a finding about it is right."""
    return np.asarray(1 + np.cumsum(0.1 * 10 ** rng.uniform(-2, 0) / np.sqrt(count) * rng.normal(size=count)))


def alarms(first: Values, second: Values) -> list[Finding]:
    steps = np.arange(len(first), dtype=np.float64)
    return [
        *curves.find_not_finite([("loss", "step", steps, first)]),
        *curves.find_divergence("loss", steps, first),
        *curves.find_plateau("loss", steps, first),
        *curves.find_spikes("loss", steps, first),
        *curves.find_overfitting(("train", "val"), (steps, first), (steps, second)),
        *usage.find_memory_growth("node", 1000 * first),
    ]


CURVES = [constant, near_zero, lognormal, decaying, decaying_with_relative_noise, heavy_tails, small_walk]


@pytest.mark.parametrize("make", CURVES)
@pytest.mark.parametrize(("shortest", "longest"), [(3, 15), (15, 60), (60, 1500)])
def test_on_random_curves_at_most_1_percent_are_false_alarms(
    make: Callable[[np.random.Generator, int], Values], shortest: int, longest: int
) -> None:
    rng = np.random.default_rng(20261127)
    found: Counter[str] = Counter()
    for _ in range(ROUNDS):
        count = int(rng.integers(shortest, longest))
        found.update({finding.rule for finding in alarms(make(rng, count), make(rng, count))})
    assert all(number <= MOST_FALSE_ALARMS * ROUNDS for number in found.values()), dict(found)


def test_on_random_epoch_times_at_most_1_percent_are_false_alarms() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(1500):
        count = int(rng.integers(3, 300))
        seconds = rng.uniform(0.1, 1000) * np.exp(10 ** rng.uniform(-3, -0.3) * rng.normal(size=count))
        found += bool(curves.find_slow_epochs("epoch_seconds", np.arange(count, dtype=np.float64), seconds))
    assert found <= 15


def steps_of(values: Values) -> Values:
    return np.arange(len(values), dtype=np.float64)


def noisy(curve: Values, seed: int = 0, share: float = 0.02) -> Values:
    return curve * np.random.default_rng(seed).normal(1, share, len(curve))


@pytest.mark.parametrize("count", [12, 40, 2000])
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_rises_far_above_its_best_level_diverges(count: int, seed: int) -> None:
    at = np.linspace(0, 1, count)
    loss = noisy(np.where(at < 0.5, 2.3 * np.exp(-4 * at), 0.31 * np.exp(5 * (at - 0.5))), seed)
    (found,) = curves.find_divergence("train_loss", steps_of(loss), loss, "epoch")
    assert found.level == "problem"
    assert found.sentence.startswith("train_loss diverged: it ends at ")
    best = int(loss.argmin())
    assert (
        f"ends at {loss[-1]:.4g}, up from its best value {loss[best]:.4g} at epoch {format_number(best)}."
        in found.sentence
    )
    assert "The median of the last " in found.sentence


@pytest.mark.parametrize(
    "loss",
    [
        [2.3, 1.5, 1.0, 0.8, 0.7, 3, 8, 20, 50, 90],  # it explodes
        [2.3, 1.5, 1.0, 0.8, 0.7, 0.65, 0.6, 0.6, 0.58, 2.3, 2.3, 2.3],  # it collapses to the start
        [*np.linspace(2, 0.5, 1980), *[5.0] * 20],  # only at the very end
    ],
)
def test_short_and_late_divergence_is_found(loss: list[float]) -> None:
    values = np.array(loss)
    assert [finding.rule for finding in curves.find_divergence("loss", steps_of(values), values)] == ["divergence"]


@pytest.mark.parametrize("count", [12, 40, 400])
@pytest.mark.parametrize("seed", range(5))
def test_a_validation_loss_that_rises_while_the_training_loss_falls_is_overfitting(count: int, seed: int) -> None:
    at = np.linspace(0, 1, count)
    train = noisy(np.exp(-3 * at), seed)
    val = noisy(0.4 + (at - 0.4) ** 2 * 2, seed + 100, 0.01)
    (found,) = curves.find_overfitting(("train_loss", "val_loss"), (steps_of(train), train), (steps_of(val), val))
    assert found.rule == "overfitting"
    assert re.match(
        r"val_loss rose from its best value 0\.(39|4)\d* at step \d+ to (1\.|0\.9)\d+ at the end, while", found.sentence
    )
    best = int(val.argmin())
    assert f"best value {val[best]:.4g} at step {best} to {val[-1]:.4g} at the end" in found.sentence
    assert re.search(r"train_loss fell: the median of \d+ values is", found.sentence)


def test_a_validation_loss_that_rises_with_the_training_loss_is_no_overfitting() -> None:
    at = np.linspace(0, 1, 60)
    val = 0.4 + (at - 0.4) ** 2 * 2
    assert curves.find_overfitting(("t", "v"), (steps_of(val), val), (steps_of(val), val)) == []


def test_overfitting_is_found_if_validation_has_other_steps_than_training() -> None:
    train_steps, val_steps = np.arange(0, 4000, dtype=np.float64), np.arange(99, 4000, 100, dtype=np.float64)
    train, val = np.exp(-3 * train_steps / 4000), 0.4 + (val_steps / 4000 - 0.4) ** 2 * 2
    (found,) = curves.find_overfitting(("t", "v"), (train_steps, train), (val_steps, val))
    assert "at the end, while t fell: the median of 201 values is" in found.sentence


def test_a_loss_that_stops_falling_has_a_plateau() -> None:
    loss = noisy(0.1 + np.exp(-np.arange(100) / 15), share=0.005)
    (found,) = curves.find_plateau("loss", steps_of(loss), loss)
    said = re.match(
        r"loss fell from (\S+) to (\S+) until step 50, and in the second half of the training only from there to (\S+), "
        r"(\S+)% of the whole fall\. These are medians: of the first 5 values, of the 13 from step 50 on, and of the last 12\.$",
        found.sentence,
    )
    assert said
    start, middle, end, percent = map(float, said.groups())
    assert start == pytest.approx(np.median(loss[:5]), rel=1e-3)
    assert percent == pytest.approx(100 * (middle - end) / (start - end), abs=0.1)


def test_a_loss_that_rises_in_the_second_half_has_no_share_of_the_fall() -> None:
    loss = 0.1 + np.exp(-np.arange(100) / 4) + np.arange(100) / 1e4
    (found,) = curves.find_plateau("loss", steps_of(loss), loss)
    assert "in the second half of the training not further: it ends at 0.109" in found.sentence


def test_a_loss_that_still_falls_has_no_plateau() -> None:
    loss = 0.1 + np.exp(-np.arange(100) / 40)
    assert curves.find_plateau("loss", steps_of(loss), loss) == []


def test_a_spike_is_found_with_its_place_and_size() -> None:
    loss = noisy(1 + np.exp(-np.arange(300) / 60))
    loss[217] = 9.5
    (found,) = curves.find_spikes("loss", steps_of(loss), loss)
    assert "1 spike, the highest one at step 217: 9.5 among 1.0" in found.sentence


def test_values_that_are_not_finite_are_counted() -> None:
    loss = np.array([1.0, 0.5, np.nan, np.inf])
    (found,) = curves.find_not_finite([("loss", "step", np.array([0.0, 10, 20, 30]), loss)])
    assert found.sentence == "loss is NaN or infinite at 2 of 4 points, first at step 20."


def test_an_epoch_that_takes_far_longer_is_found() -> None:
    seconds = noisy(np.full(20, 30.0))
    seconds[[0, 7]] = 200.0  # the first epoch starts the workers
    (found,) = curves.find_slow_epochs("epoch_seconds", steps_of(seconds), seconds)
    assert found.sentence.startswith("1 of 19 epochs after the first one")
    assert "epoch 7 with 200 s" in found.sentence


@pytest.mark.parametrize(
    ("shares", "is_found"), [([0.9, 0.4, 0.5], True), ([0.9, 0.1, 0.05], False), ([0.5], True), ([], False)]
)
def test_slow_data_is_judged_without_the_first_epoch(shares: list[float], is_found: bool) -> None:
    assert bool(usage.find_slow_data(np.array(shares))) is is_found


def test_memory_that_grows_evenly_is_found_and_a_jump_is_not() -> None:
    growing = 1000 + 5.0 * np.arange(100) + np.random.default_rng(1).normal(0, 3, 100)
    (found,) = usage.find_memory_growth("node-1", growing)
    assert "on node-1 grew evenly from 1,196 MB to 1,464 MB" in found.sentence
    jump = np.where(np.arange(100) < 60, 1000.0, 2000.0)
    assert usage.find_memory_growth("node-1", jump) == []


def test_use_is_compared_with_its_thresholds() -> None:
    low, high = np.full(20, 12.0), np.full(20, 96.0)
    assert "GPU 0 on a was used to 12% on average of 20 samples" in usage.find_low_gpu("GPU 0", "a", low)[0].sentence
    assert usage.find_low_gpu("GPU 0", "a", high) == []
    assert "used 12% of one core" in usage.find_low_cpu("a", low, low)[0].sentence
    assert usage.find_low_cpu("a", low, high) == []  # the node was busy with something else
    assert usage.find_low_cpu("a", high, low) == []
    assert usage.find_full_memory("The memory", "a", high)[0].level == "problem"
    assert usage.find_full_memory("The memory", "a", low) == []


def test_a_long_tail_needs_enough_batches() -> None:
    histogram = LatencyHistogram()
    for number in range(90):
        histogram.add(50_000_000 if number >= 80 else 1_000_000, 1)
    assert usage.find_long_tail("predict", histogram) == []
    for _ in range(60):
        histogram.add(1_000_000, 1)
    assert (
        "predict: the p99 of 49.95 ms is 49.92 times the median"
        in usage.find_long_tail("predict", histogram)[0].sentence
    )


def test_every_rule_is_documented_with_its_threshold() -> None:
    page = (Path(__file__).parents[2] / "docs" / "report-rules.md").read_text(encoding="utf-8")
    for name, meaning in RULES.items():
        assert f"| `{name}` | {meaning} |" in page
