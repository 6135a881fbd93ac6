"""Rules about the curves of a training: losses and the times of epochs.

*Noise* is the standard deviation of the points around their trend, from second differences. A *level* is a median of
neighbouring points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..figures import Finding
from ..numbers import format_number, format_share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Values = NDArray[np.float64]

MIN_POINTS: Final = 8
MAX_NOT_FINITE: Final = 3  # metrics that a finding names; it counts the others
DIVERGENCE_NOISE: Final = 6.0
DIVERGENCE_RISE: Final = 0.5
OVERFITTING_NOISE: Final = 5.0
OVERFITTING_RISE: Final = 0.1
PLATEAU_SHARE: Final = 0.05
PLATEAU_MIN_POINTS: Final = 20
PLATEAU_NOISE: Final = 20.0
SPIKE_FACTOR: Final = 3.0
SPIKE_NOISE: Final = 8.0
SPIKE_MIN_POINTS: Final = 20
SLOW_EPOCH_FACTOR: Final = 2.0
SLOW_EPOCH_NOISE: Final = 8.0

CURVE_RULES: Final = {
    "not-finite": "A metric has NaN or infinite values.",
    "divergence": (
        f"A loss ends above its best level by more than {DIVERGENCE_RISE:.0%} of that level, {DIVERGENCE_NOISE:g} times the "
        "noise and half of what it had gained."
    ),
    "overfitting": (
        f"A validation loss ends above its best level by more than {OVERFITTING_RISE:.0%} and {OVERFITTING_NOISE:g} times "
        "the noise, while the training loss fell by more than its noise."
    ),
    "plateau": f"The second half of a training brought less than {PLATEAU_SHARE:.0%} of the gain of a loss, noise included.",
    "loss-spike": (
        f"A point of a loss is more than {SPIKE_FACTOR:g} times its surroundings, and {SPIKE_NOISE:g} times the spread of their "
        "logarithms above them."
    ),
    "slow-epoch": (
        f"An epoch after the first one took more than {SLOW_EPOCH_FACTOR:g} times the median, and {SLOW_EPOCH_NOISE:g} times "
        "the spread of the logarithms above it."
    ),
}


def noise_of(values: Values) -> float:
    """Return the standard deviation of the points around their trend, from second differences; 0 for fewer than 3 points."""
    if len(values) < 3:
        return 0.0
    bends = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    robust = 1.4826 * float(np.median(bends)) / np.sqrt(6)
    if len(values) >= 30:
        return float(robust)
    # A median of few points is small by chance: the root mean square guards against that.
    return max(float(robust), float(np.sqrt(np.mean(bends**2) / 6)) / 2)


def find_not_finite(curves: Sequence[tuple[str, str, Values, Values]]) -> list[Finding]:
    """Find NaN and infinity in metrics, in one finding.

    Args:
        curves: the name, what the steps count, the steps and the values of each metric.
    """
    found = [
        f"{name} is NaN or infinite at {len(broken):,} of {len(values):,} points, first at {at} {format_number(float(steps[broken[0]]))}"
        for name, at, steps, values in curves
        if len(broken := np.flatnonzero(~np.isfinite(values)))
    ]
    if not found:
        return []
    more = len(found) - MAX_NOT_FINITE
    others = (
        f"; and so {'is' if more == 1 else 'are'} {more:,} more {'metric' if more == 1 else 'metrics'}"
        if more > 0
        else ""
    )
    return [Finding("not-finite", "problem", f"{'; '.join(found[:MAX_NOT_FINITE])}{others}.")]


def find_divergence(name: str, steps: Values, values: Values, at: str = "step") -> list[Finding]:
    """Find a loss that ends far above its best level."""
    course = _summarize(steps, values)
    if course is None:
        return []
    last = course.values[-max(3, len(course.values) // 100) :]
    low, end = course.low, float(np.median(last))
    if end - low <= max(DIVERGENCE_RISE * abs(low), DIVERGENCE_NOISE * course.noise, 0.5 * (course.first - low)):
        return []
    sentence = (
        f"{name} diverged: it ends at {format_number(course.values[-1])}, up from its best value {course.describe_best(at)}. "
        f"The median of the last {len(last):,} values is {format_number(end)}."
    )
    return [Finding("divergence", "problem", sentence)]


def find_overfitting(
    names: tuple[str, str], training: tuple[Values, Values], validation: tuple[Values, Values], at: str = "step"
) -> list[Finding]:
    """Find a validation loss that rises while the training loss falls.

    Args:
        names: the names of the training and the validation loss.
        training: steps and values.
        validation: steps and values.
        at: what the steps count.
    """
    course = _summarize(*validation)
    if course is None:
        return []
    low, end = course.low, course.last
    if end - low <= max(OVERFITTING_RISE * abs(low), OVERFITTING_NOISE * course.noise):
        return []
    train_steps, train = _finite(*training)
    before = _level_around(train_steps, train, course.low_step)
    after = _level_around(train_steps, train, course.steps[-1])
    if before is None or after is None or before - after <= max(noise_of(train), 0.01 * abs(before)):
        return []
    sentence = (
        f"{names[1]} rose from its best value {course.describe_best(at)} to {format_number(course.values[-1])} at the end, while "
        f"{names[0]} fell: the median of {2 * _half_width(train) + 1:,} values is {format_number(before)} around {at} "
        f"{format_number(course.low_step)}, and {format_number(after)} at the end. The model overfits."
    )
    return [Finding("overfitting", "advice", sentence)]


def find_plateau(name: str, steps: Values, values: Values, at: str = "step") -> list[Finding]:
    """Find a loss that gained almost nothing in the second half of the training."""
    steps, values = _finite(steps, values)
    if len(values) < PLATEAU_MIN_POINTS:
        return []
    half = len(values) // 2
    first = values[: max(3, half // 10)]
    parts = np.array_split(values[half:], 4)
    start, levels = float(np.median(first)), np.array([np.median(part) for part in parts])
    noise = noise_of(values[half:])
    gain, late = start - levels[-1], levels[0] - levels[-1]
    margin = 3 * 1.25 * noise * np.sqrt(2 / (half // 4))
    if gain <= PLATEAU_NOISE * noise or gain <= 0 or np.ptp(levels) + margin >= PLATEAU_SHARE * gain:
        return []
    after = (
        f"only from there to {format_number(levels[-1])}, {format_share(late / gain)} of the whole fall"
        if late > 0
        else f"not further: it ends at {format_number(levels[-1])}"
    )
    sentence = (
        f"{name} fell from {format_number(start)} to {format_number(levels[0])} until {at} {format_number(steps[half])}, and in "
        f"the second half of the training {after}. These are medians: of the first {len(first):,} values, of the "
        f"{len(parts[0]):,} from {at} {format_number(steps[half])} on, and of the last {len(parts[-1]):,}."
    )
    return [Finding("plateau", "advice", sentence)]


def find_spikes(name: str, steps: Values, values: Values, at: str = "step") -> list[Finding]:
    """Find single points of a loss far above their surroundings."""
    steps, values = _finite(steps, values)
    if len(values) < SPIKE_MIN_POINTS or values.min() <= 0:
        return []
    width = 10
    logarithms = np.log(values)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(logarithms, width, mode="reflect"), 2 * width + 1)
    middle = np.median(windows, axis=1)
    spread = 1.4826 * np.median(np.abs(windows - middle[:, None]), axis=1)
    above = logarithms - middle
    is_spike = above > np.maximum(np.log(SPIKE_FACTOR), SPIKE_NOISE * np.maximum(spread, float(np.median(spread))))
    is_spike[:width] = False  # a loss falls steeply at the start
    found = np.flatnonzero(is_spike)
    if not len(found):
        return []
    highest = int(found[np.argmax(values[found])])
    sentence = (
        f"{name} has {len(found):,} {'spike' if len(found) == 1 else 'spikes'}, the highest one at {at} "
        f"{format_number(steps[highest])}: {format_number(values[highest])} among {format_number(float(np.exp(middle[highest])))}."
    )
    return [Finding("loss-spike", "advice", sentence)]


def find_slow_epochs(name: str, steps: Values, seconds: Values, at: str = "epoch") -> list[Finding]:
    """Find epochs that took far longer than the others."""
    steps, seconds = _finite(steps[1:], seconds[1:])
    if len(seconds) < MIN_POINTS or seconds.min() <= 0:
        return []
    median = float(np.median(seconds))
    logarithms = np.log(seconds)
    spread = 1.4826 * float(np.median(np.abs(logarithms - np.log(median))))
    limit = median * float(np.exp(max(np.log(SLOW_EPOCH_FACTOR), SLOW_EPOCH_NOISE * spread)))
    slow = np.flatnonzero(seconds > limit)
    if not len(slow):
        return []
    worst = int(np.argmax(seconds))
    sentence = (
        f"{len(slow):,} of {len(seconds):,} epochs after the first one took more than {format_number(limit, 's')} "
        f"({name}, median {format_number(median, 's')}); the slowest one is {at} {format_number(steps[worst])} with "
        f"{format_number(seconds[worst], 's')}."
    )
    return [Finding("slow-epoch", "advice", sentence)]


def _finite(steps: Values, values: Values) -> tuple[Values, Values]:
    kept = np.isfinite(values)
    return steps[kept], values[kept]


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """A loss without NaN and infinity, and its levels.

    Attributes:
        steps: the steps.
        values: the values.
        noise: the noise of the values.
        first: the first level.
        low: the lowest level.
        low_step: the middle step of the lowest level.
        last: the last level.
    """

    steps: Values
    values: Values
    noise: float
    first: float
    low: float
    low_step: float
    last: float

    def describe_best(self, at: str) -> str:
        """Return the lowest value and its place: single points, which the reader finds in the chart and in the tables."""
        best = int(self.values.argmin())
        return f"{format_number(self.values[best])} at {at} {format_number(self.steps[best])}"


def _summarize(steps: Values, values: Values) -> _Course | None:
    """Return the course of a loss, with about 20 levels of at least 3 points; None for too few points."""
    steps, values = _finite(steps, values)
    if len(values) < MIN_POINTS:
        return None
    groups = np.array_split(np.arange(len(values)), min(20, len(values) // 3))
    levels = [float(np.median(values[group])) for group in groups]
    low = min(levels)
    lowest = groups[levels.index(low)]
    low_step = float(steps[lowest[len(lowest) // 2]])
    return _Course(steps, values, noise_of(values), levels[0], low, low_step, levels[-1])


def _level_around(steps: Values, values: Values, step: float) -> float | None:
    """Return the median of the points nearest to a step: 3 of them, or 5% of all."""
    if len(values) < MIN_POINTS:
        return None
    place = int(np.searchsorted(steps, step))
    half = _half_width(values)
    end = min(place + half + 1, len(values))
    return float(np.median(values[max(0, end - 2 * half - 1) : end]))


def _half_width(values: Values) -> int:
    """Return how many points before and after a place count for its level."""
    return max(1, len(values) // 40)
