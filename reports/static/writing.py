"""The files of the formats ``svg`` and ``png``: the comprehensive dashboard, and each of its panels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..dashboards.comprehensive import plot_comprehensive_dashboard
from .rendering import render_all

if TYPE_CHECKING:
    from pathlib import Path

    from ..data import ReportData
    from .rendering import Format

NAME: Final = "report"
PANELS: Final = "panels"


def write_svg(data: ReportData, directory: Path) -> list[Path]:
    """Write ``report.svg``, and ``panels/<panel>.svg`` of each panel with data. Return their paths."""
    return _write(data, directory, "svg")


def write_png(data: ReportData, directory: Path) -> list[Path]:
    """Write ``report.png``, and ``panels/<panel>.png`` of each panel with data. Return their paths."""
    return _write(data, directory, "png")


def _write(data: ReportData, directory: Path, kind: Format) -> list[Path]:
    page, panels = render_all(plot_comprehensive_dashboard(data), kind)
    (directory / PANELS).mkdir(exist_ok=True)
    files = {directory / f"{NAME}.{kind}": page}
    files |= {directory / PANELS / f"{name}.{kind}": content for name, content in panels.items()}
    for file, content in files.items():
        file.write_bytes(content)
    return list(files)
