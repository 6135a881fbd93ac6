"""Directive ``metric-table``: the table of ``mlflow_ipfs.training.metric_names``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
from docutils.parsers.rst import Directive

from mlflow_ipfs.training.metric_names import METRIC_NAMES

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_WIDTHS = (34, 6, 12, 48)


class MetricTable(Directive):
    """All metrics: key, unit, step and meaning."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        table, group = nodes.table(), nodes.tgroup(cols=len(_WIDTHS))
        group += [nodes.colspec(colwidth=width) for width in _WIDTHS]
        head, body = nodes.thead(), nodes.tbody()
        head += _row("Key", "Unit", "Step", "Meaning")
        body += [_row(name.key, name.unit, name.step, name.meaning, is_key=True) for name in METRIC_NAMES]
        group += [head, body]
        table += group
        return [table]


def _row(*texts: str, is_key: bool = False) -> nodes.row:
    row = nodes.row()
    for number, text in enumerate(texts):
        entry, paragraph = nodes.entry(), nodes.paragraph()
        paragraph += nodes.literal(text=text) if is_key and number == 0 else nodes.Text(text)
        entry += paragraph
        row += entry
    return row


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("metric-table", MetricTable)
    return {"parallel_read_safe": True}
