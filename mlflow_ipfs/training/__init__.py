"""What the Lightning and the Keras callbacks share: the run log, the metrics collector, resources and latency.

No framework is imported here. ``MetricsCollector``, ``measure_inference`` and ``open_run_log`` are for training code without
callbacks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mlflow_ipfs.training.collector import MetricsCollector
    from mlflow_ipfs.training.latency import LatencyRecorder, measure_inference
    from mlflow_ipfs.training.resources import ResourceSampler
    from mlflow_ipfs.training.runlog.opening import open_run_log
    from mlflow_ipfs.training.runlog.run_log import RunLog, RunLogReport

__all__ = [
    "LatencyRecorder",
    "MetricsCollector",
    "ResourceSampler",
    "RunLog",
    "RunLogReport",
    "measure_inference",
    "open_run_log",
]

_MODULES: Final = {
    "LatencyRecorder": "latency",
    "MetricsCollector": "collector",
    "ResourceSampler": "resources",
    "RunLog": "runlog.run_log",
    "RunLogReport": "runlog.run_log",
    "measure_inference": "latency",
    "open_run_log": "runlog.opening",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
