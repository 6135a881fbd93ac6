"""The rules, applied to the curves of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mlflow_ipfs.training import metric_names as names

from ..metric_roles import parse_key
from ..numbers import shown
from ..rules import curves as rules
from ..rules.usage import find_slow_data
from .curves import Curve, choose_x, place_in_chart
from .naming import name_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]

    from ..data import Run
    from ..figures import Finding


def find_in_losses(runs: Sequence[Run], keys: Sequence[str]) -> list[Finding]:
    """Return what the rules find in the losses of one quantity. Of several runs, each sentence names its run."""
    at, places = _place(runs, keys)
    found = [_find_in_losses_of(at, arrays) for arrays in places]
    return _of_each_run(runs, found)


def find_not_finite(runs: Sequence[Run], keys: Sequence[str]) -> list[Finding]:
    """Return one finding for each run that has metrics with NaN or infinity."""
    found = []
    for run in runs:
        broken = [key for key in keys if key in run.metrics and not np.isfinite(run.metrics[key].values).all()]
        placed = [(key, *place_in_chart(run, key)) for key in broken[: rules.MAX_NOT_FINITE]]
        placed += [(key, "step", run.metrics[key].steps.astype(np.float64)) for key in broken[rules.MAX_NOT_FINITE :]]
        found.append(
            rules.find_not_finite([(shown(key), at, places, run.metrics[key].values) for key, at, places in placed])
        )
    return _of_each_run(runs, found)


def find_in_speed(runs: Sequence[Run], keys: Sequence[str]) -> list[Finding]:
    """Return what the rules find in epoch times and data wait."""
    found = []
    at, places = _place(runs, keys)
    for arrays in places:
        of_run: list[Finding] = []
        for key, (steps, values) in arrays.items():
            last = key.rpartition("/")[2]
            if last == names.EPOCH_SECONDS:
                of_run += rules.find_slow_epochs(shown(key), steps, values, at)
            if last == names.DATA_WAIT_SHARE:
                of_run += find_slow_data(values)
        found.append(of_run)
    return _of_each_run(runs, found)


def _find_in_losses_of(at: str, arrays: dict[str, Arrays]) -> list[Finding]:
    found: list[Finding] = []
    training = [key for key in arrays if parse_key(key).stage in {"training", ""}]
    validation = [key for key in arrays if parse_key(key).stage == "validation"]
    for key, (steps, values) in arrays.items():
        name = shown(key)
        if key in training:
            found += rules.find_divergence(name, steps, values, at)
            found += rules.find_spikes(name, steps, values, at)
    if training and validation:
        # Lightning logs a loss for each step, for each epoch or both: the one for each epoch is like that of the validation.
        pair = max(training, key=lambda key: parse_key(key).per == "epoch"), validation[0]
        found += rules.find_overfitting((shown(pair[0]), shown(pair[1])), arrays[pair[0]], arrays[pair[1]], at)
    for key in validation[:1] or training[:1]:
        found += rules.find_plateau(shown(key), *arrays[key], at)
    return found


def _place(runs: Sequence[Run], keys: Sequence[str]) -> tuple[str, list[dict[str, Arrays]]]:
    """Return what the places of the points count in the chart of the keys, and places and values by key for each run."""
    curves = [Curve(run, run.metrics[key], key) for run in runs for key in keys if len(run.metrics.get(key, ()))]
    axis, places = choose_x(curves)
    found: dict[str, dict[str, Arrays]] = {run.run_id: {} for run in runs}
    for curve, place in zip(curves, places, strict=True):
        found[curve.run.run_id][curve.name] = place, curve.series.values
    return axis.label, [found[run.run_id] for run in runs]


def _of_each_run(runs: Sequence[Run], findings: Sequence[list[Finding]]) -> list[Finding]:
    if len(runs) == 1:
        return findings[0]
    labels = name_runs(runs)
    return [
        replace(finding, sentence=f"{labels[run.run_id]}: {finding.sentence}")
        for run, of_run in zip(runs, findings, strict=True)
        for finding in of_run
    ]
