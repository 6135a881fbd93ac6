"""Visualizations with the names of the guide: dashboards of a report, or of a metrics collector, to show and to save."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import SettingsError

from .collector_source import read_collector
from .dashboards.comparison import plot_comparison
from .dashboards.comprehensive import plot_comprehensive_dashboard
from .dashboards.inference import plot_inference_metrics
from .dashboards.lineage import plot_lineage
from .dashboards.resources import plot_worker_utilization
from .dashboards.training import plot_training_metrics
from .data import ReportData
from .exporting import export
from .frames import get_metrics_dataframe
from .html.writing import generate_html_report

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    import pandas as pd

    from mlflow_ipfs.training import MetricsCollector

    from .figures import Dashboard
    from .static.rendering import Format

_HTML: Final = ".html"
_FRAME_PIXELS: Final = 900
_FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {".svg": "svg", ".png": "png"}
_NO_MATPLOTLIB: Final = (
    "matplotlib is not installed, so plots are shown as text; install it with: pip install 'mlflow-ipfs[reports]'"
)


def create_visualization(metrics: ReportData | MetricsCollector, *, interactive: bool = True) -> Visualization:
    """Return the visualizations of what was collected.

    Args:
        metrics: what ``collect`` returned; or a metrics collector, which is read at each plot, so it may still be recording.
        interactive: whether a notebook displays plots that can be zoomed, as HTML of about 1.4 MB each. If not, it displays
            SVG. It changes nothing outside of notebooks, nor in files.
    """
    return Visualization(metrics, interactive=interactive)


@dataclass(frozen=True, slots=True, repr=False)
class Plot:
    """A dashboard that can be saved, and that a notebook displays.

    Attributes:
        dashboard: its figures as data.
        interactive: whether a notebook displays it as HTML instead of SVG.
    """

    dashboard: Dashboard
    interactive: bool = False

    def render(self, kind: Format) -> bytes:
        """Return the dashboard as SVG or PNG. Equal data gives equal bytes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from .static.rendering import render_dashboard  # noqa: PLC0415 - matplotlib is an optional dependency

        return render_dashboard(self.dashboard, kind)

    def render_page(self) -> bytes:
        """Return the dashboard as one self-contained HTML page. Equal data gives equal bytes."""
        from .html.page import render_page  # noqa: PLC0415 - Jinja loads slowly

        return render_page(self.dashboard)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the dashboard to a file, in the format that its suffix names. Return its path.

        Raises:
            SettingsError: the suffix is neither ``.html`` nor ``.svg`` nor ``.png``.
            ImportError: matplotlib is not installed, for SVG and PNG.
        """
        file = Path(path)
        if file.suffix.lower() == _HTML:
            file.write_bytes(self.render_page())
            return file
        kind = _FORMAT_OF_SUFFIX.get(file.suffix.lower())
        if kind is None:
            msg = (
                f"{file} cannot be written: its suffix names no format; use {' or '.join([_HTML, *_FORMAT_OF_SUFFIX])}"
            )
            raise SettingsError(msg)
        file.write_bytes(self.render(kind))
        return file

    def describe(self) -> str:
        """Return the dashboard in words: what it shows, what was found, and what is missing."""
        board = self.dashboard
        lines = [board.title, board.sentence]
        lines += [f"{finding.level}: {finding.sentence}" for finding in board.findings]
        lines += [f"note: {note}" for note in board.notes]
        lines += [f"no data: {panel.title}: {panel.empty_reason}" for panel in board.panels if panel.is_empty]
        return "\n".join(lines)

    def show(self) -> None:
        """Display the dashboard in a notebook; elsewhere, print it in words."""
        display = getattr(sys.modules.get("IPython.display"), "display", None)
        if display is not None and _is_in_notebook():
            display(self)
        else:
            print(self.describe())  # noqa: T201 - the caller asked to be shown the plot

    def __str__(self) -> str:
        return self.describe()

    __repr__ = __str__

    def _repr_html_(self) -> str | None:
        """Return the page that a notebook displays, in a frame that can do nothing but draw; None if it is not interactive."""
        if not self.interactive:
            return None
        page = escape(self.render_page().decode())
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:{_FRAME_PIXELS}px;border:0"></iframe>'

    def _repr_svg_(self) -> str | None:
        """Return the SVG that a notebook displays; None without matplotlib, so that it displays the text."""
        if self.interactive:
            return None
        try:
            return self.render("svg").decode()
        except ImportError:
            warnings.warn(_NO_MATPLOTLIB, stacklevel=2)  # Python shows it once
            return None


class Visualization:
    """The dashboards of a report, by the names of the guide.

    Args:
        metrics: as in ``create_visualization``.
        interactive: as in ``create_visualization``.
    """

    def __init__(self, metrics: ReportData | MetricsCollector, *, interactive: bool = True) -> None:
        self._metrics = metrics
        self._interactive = interactive

    @property
    def data(self) -> ReportData:
        """The data, as it is now."""
        return self._metrics if isinstance(self._metrics, ReportData) else read_collector(self._metrics)

    def plot_training_metrics(self, model_id: str | None = None, *, show_plot: bool = False) -> Plot:
        """Return the training dashboard: of one model of the collector, or of all."""
        return self._make(plot_training_metrics(self.data, model_id), show_plot=show_plot)

    def plot_inference_metrics(self, model_id: str | None = None, *, show_plot: bool = False) -> Plot:
        """Return the inference dashboard: of one model of the collector, or of all."""
        return self._make(plot_inference_metrics(self.data, model_id), show_plot=show_plot)

    def plot_worker_utilization(self, *, show_plot: bool = False) -> Plot:
        """Return the resource dashboard."""
        return self._make(plot_worker_utilization(self.data), show_plot=show_plot)

    def plot_comparison(self, *, show_plot: bool = False) -> Plot:
        """Return the comparison of runs."""
        return self._make(plot_comparison(self.data), show_plot=show_plot)

    def plot_lineage(self, *, show_plot: bool = False) -> Plot:
        """Return the lineage dashboard."""
        return self._make(plot_lineage(self.data), show_plot=show_plot)

    def plot_comprehensive_dashboard(self, *, show_plot: bool = False) -> Plot:
        """Return the dashboard of everything on one page."""
        return self._make(plot_comprehensive_dashboard(self.data), show_plot=show_plot)

    def get_metrics_dataframe(self, model_id: str | None = None) -> pd.DataFrame:
        """Return the metric histories as a wide data frame: of one model of the collector, or of all.

        Raises:
            ImportError: pandas is not installed.
        """
        return get_metrics_dataframe(self.data, model_id=model_id)

    def generate_html_report(self, output_file: str | os.PathLike[str]) -> Path:
        """Write everything as one self-contained HTML page. Return its path.

        Raises:
            OSError: the file cannot be written.
        """
        return generate_html_report(self.data, output_file)

    def export_visualizations(self, export_dir: str | os.PathLike[str], formats: Iterable[str]) -> list[Path]:
        """Write the report into a directory in some formats. Return the files. See ``export`` for what it raises."""
        return export(self.data, export_dir, formats)

    def _make(self, dashboard: Dashboard, *, show_plot: bool) -> Plot:
        plot = Plot(dashboard, self._interactive)
        if show_plot:
            plot.show()
        return plot


def _is_in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_ipython is not None and getattr(get_ipython(), "kernel", None) is not None
