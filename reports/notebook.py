"""The cell magic ``%%mlflow_report``: it runs a cell, and displays the dashboard of the runs that the cell logged to."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.errors import MlflowIpfsError
from mlflow_ipfs.training.runlog import shutdown

from .collecting import collect
from .logged_runs import record_logged_runs
from .visualization import Visualization, create_visualization

if TYPE_CHECKING:
    from collections.abc import Callable

    from .logged_runs import LoggedRuns
    from .visualization import Plot

_FLUSH_SECONDS: Final = 10.0
DASHBOARDS: Final[dict[str, Callable[..., Plot]]] = {
    "comprehensive": Visualization.plot_comprehensive_dashboard,
    "training": Visualization.plot_training_metrics,
    "inference": Visualization.plot_inference_metrics,
    "resources": Visualization.plot_worker_utilization,
    "comparison": Visualization.plot_comparison,
    "lineage": Visualization.plot_lineage,
}


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython is an optional dependency
    """Add the cell magic to IPython, which calls this function at ``%load_ext reports``."""
    magic_arguments: Any = import_module("IPython.core.magic_arguments")  # a part of IPython without types
    parser = magic_arguments.MagicArgumentParser(
        "%mlflow_report",  # the parser puts another % before it
        description="Run the cell, and display a dashboard of the MLflow runs that this process logged to meanwhile.",
    )
    parser.add_argument("--dashboard", choices=list(DASHBOARDS), default="comprehensive", help="what to display")
    parser.add_argument("--static", action="store_true", help="display SVG instead of plots that can be zoomed")

    def mlflow_report(line: str, cell: str) -> None:
        options = parser.parse_argstring(line)
        run_cell(shell, cell, options.dashboard, interactive=not options.static)

    mlflow_report.__doc__ = parser.format_help()  # for `%%mlflow_report?`
    shell.register_magic_function(mlflow_report, "cell")


def run_cell(shell: Any, cell: str, dashboard: str, *, interactive: bool) -> None:  # noqa: ANN401
    """Run a cell, and display a dashboard of the runs that were created or logged to meanwhile.

    Args:
        shell: IPython's shell.
        cell: the code.
        dashboard: one of ``DASHBOARDS``.
        interactive: whether a notebook displays plots that can be zoomed.

    Raises:
        BaseException: what the cell raised. IPython has displayed its traceback already, above the dashboard.
    """
    with record_logged_runs() as runs:
        result = shell.run_cell(cell)
        _send_all(runs)
    error = result.error_before_exec or result.error_in_exec
    if error is not None:
        print(f"The cell ended with {type(error).__name__}. Its runs have what was logged before.")  # noqa: T201
    _display(runs, DASHBOARDS[dashboard], interactive=interactive)
    if error is not None:
        text = f"{type(error).__name__}: {error} (the traceback is above the report)"
        with suppress(AttributeError):  # an exception with slots
            error._render_traceback_ = lambda: [text]  # IPython's hook: the traceback is not displayed twice
        raise error


def _send_all(runs: LoggedRuns) -> None:
    """Wait until MLflow has what the cell logged on other threads."""
    import mlflow  # noqa: PLC0415 - MLflow loads slowly

    if mlflow.get_tracking_uri() in runs.by_tracking_uri():
        mlflow.flush_async_logging()
    if not shutdown.flush_all(_FLUSH_SECONDS):
        print("MLflow does not have all metrics of the cell yet, so that the report lacks some.")  # noqa: T201


def _display(runs: LoggedRuns, plot: Callable[..., Plot], *, interactive: bool) -> None:
    found = runs.by_tracking_uri()
    if not found:
        print("No report: the cell logged to no MLflow run. `mlflow-ipfs runlog ls` lists runs that wait for MLflow.")  # noqa: T201
    for uri, run_ids in found.items():
        try:
            data = collect(run_ids=run_ids, tracking_uri=uri)
        except MlflowIpfsError as error:
            print(f"No report: {error}")  # noqa: T201
            continue
        plot(create_visualization(data, interactive=interactive), show_plot=True)
