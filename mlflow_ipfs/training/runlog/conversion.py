"""Conversion of logged values to points, off the training thread."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.training.runlog.records import Point

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_NAME_LENGTH: Final = 250  # MLflow's limit (MAX_ENTITY_KEY_LENGTH)
_NOT_ALLOWED: Final = re.compile(r"[^\w\-. :/]", re.ASCII)  # what MLflow refuses in names of metrics
_names: dict[str, str] = {}
_MAX_NAMES: Final = 100_000


def convert_metrics(metrics: Mapping[str, Any], step: int, timestamp: int, points: list[Point], bad: list[str]) -> None:
    """Append a point for each value, or the name of a value that is not a number to ``bad``."""
    for name, value in metrics.items():
        try:
            # ``item`` of a tensor waits for its device and copies the value. This thread may wait.
            item = getattr(value, "item", None)
            number = float(value if item is None else item())
            points.append(Point(metric_name(name), number, int(step), timestamp))
        except Exception:  # noqa: BLE001 - any error of a framework; one bad value must not cost the others
            bad.append(str(name))


def metric_name(name: str) -> str:
    """Return the name that MLflow stores: characters that MLflow refuses are replaced by ``_``."""
    found = _names.get(name)
    if found is None:
        found = _NOT_ALLOWED.sub("_", str(name))[:MAX_NAME_LENGTH]
        if len(_names) < _MAX_NAMES:
            _names[name] = found
    return found
