"""Conversion of logged values to points, off the training thread."""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.training.runlog.records import Point

if TYPE_CHECKING:
    from collections.abc import Mapping

_logger = logging.getLogger(__name__)

MAX_NAME_LENGTH: Final = 250  # MLflow's limit (MAX_ENTITY_KEY_LENGTH)
_NOT_ALLOWED: Final = re.compile(
    r"[^\w\-. :/]"
)  # what MLflow refuses in names of metrics; letters of all scripts are allowed
_STEPS: Final = range(-(2**63), 2**63)  # of MLflow's column
_names: dict[str, str] = {}
_owners: dict[str, str] = {}  # the name for which each of MLflow's names was made
_MAX_NAMES: Final = 100_000


def convert_metrics(metrics: Mapping[str, Any], step: int, timestamp: int, points: list[Point], bad: list[str]) -> None:
    """Append a point for each value, or the name of a value that is not a number to ``bad``."""
    for name, value in metrics.items():
        try:
            # ``item`` of a tensor waits for its device and copies the value. This thread may wait.
            item = getattr(value, "item", None)
            number = float(value if item is None else item())
            if int(step) not in _STEPS:
                bad.append(f"{name} (step {step})")
                continue
            points.append(Point(metric_name(name), number, int(step), timestamp))
        except Exception:  # noqa: BLE001 - any error of a framework; one bad value must not cost the others
            bad.append(str(name))


def metric_name(name: str) -> str:
    """Return the name that MLflow stores: characters that MLflow refuses are replaced by ``_``, and long names are cut.

    If another name became the same one before, the name gets a hash at its end, so that two metrics never become one.
    """
    found = _names.get(name)
    if found is None:
        found = _NOT_ALLOWED.sub("_", str(name))[:MAX_NAME_LENGTH]
        if _owners.get(found, name) != name:
            digest = hashlib.sha256(str(name).encode("utf-8", "surrogatepass")).hexdigest()[:8]
            found = f"{found[: MAX_NAME_LENGTH - 9]}_{digest}"
            _logger.warning(
                "the metric %.300r is stored as %r, because another metric has its name in MLflow", name, found
            )
        if len(_names) < _MAX_NAMES:
            _names[name] = found
            _owners.setdefault(found, name)
    return found
