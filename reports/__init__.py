"""Reports of MLflow runs: complete metric histories, latencies, resources and lineage by CID.

``collect`` reads runs from any MLflow, and ``read_collector`` those of a ``MetricsCollector``. ``get_metrics_dataframe`` gives
their histories to pandas, and ``export`` writes files. ``create_visualization`` and the ``plot_…`` functions make dashboards. The command is ``mlflow-ipfs report``.
In a notebook, ``%load_ext reports`` adds the cell magic ``%%mlflow_report``.

Only tests and notebooks import this package by its name. Its own modules use relative imports, and callbacks find it by its
entry points, because another distribution may have the same name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .collecting import collect
    from .collector_source import read_collector
    from .dashboards.comparison import plot_comparison
    from .dashboards.comprehensive import plot_comprehensive_dashboard
    from .dashboards.inference import plot_inference_metrics
    from .dashboards.lineage import plot_lineage
    from .dashboards.resources import plot_worker_utilization
    from .dashboards.training import plot_training_metrics
    from .data import DatasetInput, Latency, Missing, ModelVersion, ReportData, Run, Series
    from .exporting import export
    from .frames import get_metrics_dataframe
    from .html.writing import generate_html_report
    from .notebook import load_ipython_extension
    from .visualization import create_visualization

__all__ = [
    "DatasetInput",
    "Latency",
    "Missing",
    "ModelVersion",
    "ReportData",
    "Run",
    "Series",
    "collect",
    "create_visualization",
    "export",
    "generate_html_report",
    "get_metrics_dataframe",
    "load_ipython_extension",
    "plot_comparison",
    "plot_comprehensive_dashboard",
    "plot_inference_metrics",
    "plot_lineage",
    "plot_training_metrics",
    "plot_worker_utilization",
    "read_collector",
]

_MODULES: Final = {
    "DatasetInput": "data",
    "Latency": "data",
    "Missing": "data",
    "ModelVersion": "data",
    "ReportData": "data",
    "Run": "data",
    "Series": "data",
    "collect": "collecting",
    "create_visualization": "visualization",
    "export": "exporting",
    "generate_html_report": "html.writing",
    "get_metrics_dataframe": "frames",
    "load_ipython_extension": "notebook",
    "plot_comparison": "dashboards.comparison",
    "plot_comprehensive_dashboard": "dashboards.comprehensive",
    "plot_inference_metrics": "dashboards.inference",
    "plot_lineage": "dashboards.lineage",
    "plot_training_metrics": "dashboards.training",
    "plot_worker_utilization": "dashboards.resources",
    "read_collector": "collector_source",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
