"""The file of the format ``html``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..dashboards.comprehensive import plot_comprehensive_dashboard
from .page import render_page

if TYPE_CHECKING:
    import os

    from ..data import ReportData

FILE: Final = "report.html"


def write_html(data: ReportData, directory: Path) -> list[Path]:
    """Write ``report.html``, the comprehensive dashboard as one page. Return its path."""
    return [generate_html_report(data, directory / FILE)]


def generate_html_report(data: ReportData, output_file: str | os.PathLike[str] = FILE) -> Path:
    """Write the comprehensive dashboard as one self-contained HTML page. Equal data gives equal bytes.

    Args:
        data: the report, for example of ``collect``.
        output_file: the file, which is replaced if it exists.

    Returns:
        The path of the file.

    Raises:
        OSError: the file cannot be written.
    """
    file = Path(output_file)
    file.write_bytes(render_page(plot_comprehensive_dashboard(data)))
    return file
