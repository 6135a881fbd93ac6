"""The page: a template that escapes everything, and a policy that allows its own two scripts only."""

from __future__ import annotations

import base64
import hashlib
import math
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import mlflow_ipfs

from ..numbers import format_number, shown
from ..palette import DARK, HEAT, LIGHT
from . import drawings
from .chart_data import Chart, build_chart_data, to_json
from .legends import build_legend
from .lineage import build_columns
from .tables import build_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..figures import Cell, Column, Dashboard, Fact, FactsPanel, Panel

_HERE: Final = Path(__file__).parent
_LONGEST_TEXT: Final = 4000
_WIDE: Final = frozenset({"TablePanel", "FactsPanel", "LineagePanel", "HeatMapPanel"})


def render_page(dashboard: Dashboard) -> bytes:
    """Return a page as HTML in UTF-8. Equal dashboards give equal bytes."""
    charts = build_chart_data(dashboard.panels)
    scripts = [_read("assets/page.js")]
    if charts["charts"]:
        scripts.insert(0, _read("vendor/plotly-basic.min.js"))
    text = _environment().get_template("page.html.j2").render(
        board=dashboard,
        charts=Markup(to_json(charts)),  # noqa: S704 - it has neither < nor > nor &
        style=Markup(_read("assets/page.css")),  # noqa: S704 - our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own files
        policy=_policy(scripts),
        version=mlflow_ipfs.__version__,
        light=LIGHT,
        dark=DARK,
        heat=HEAT,
        places=_find_places(dashboard),
    )  # fmt: skip
    return text.encode("utf-8", "replace")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    helpers = (build_legend, build_table, build_columns, group_facts, is_numeric, is_web_link, sort_value, without_link)
    environment.globals |= {helper.__name__: helper for helper in helpers}
    environment.globals |= {"drawings": drawings, "format_number": format_number}
    environment.tests |= {"chart": lambda panel: isinstance(panel, Chart), "wide": _is_wide}
    environment.filters["kind"] = lambda panel: type(panel).__name__
    return environment


def _clean(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    """Return text without control characters, and not longer than a reader can use."""
    return shown(value, _LONGEST_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_wide(panel: Panel) -> bool:
    return type(panel).__name__ in _WIDE


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> Markup:
    """Return the Content-Security-Policy. plotly sets styles on its elements, so styles in the page are allowed."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii") for script in scripts)
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return Markup(  # noqa: S704 - made of hashes
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _find_places(dashboard: Dashboard) -> dict[str, tuple[str, str]]:
    """Return the id and the title of the first panel with each finding, by the finding's sentence."""
    places: dict[str, tuple[str, str]] = {}
    for panel in dashboard.panels:
        for finding in panel.findings:
            places.setdefault(finding.sentence, (panel.panel_id, panel.title))
    return places


def is_numeric(column: Column) -> bool:
    """Return whether a column is aligned to the right."""
    return column.is_number and not column.is_sparkline


def sort_value(cell: Cell) -> str:
    """Return the number to sort a cell by, as JavaScript reads it; ``""`` for text and NaN."""
    if cell.value is None or math.isnan(cell.value):
        return ""
    return repr(float(cell.value)).replace("inf", "Infinity")


def is_web_link(link: str) -> bool:
    """Return whether a browser can follow a link. Others, such as ``ipfs://…``, are shown as text to copy."""
    return link.startswith(("http://", "https://"))


def without_link(text: str, link: str) -> str:
    """Return a text without the link or the CID at its end, which the page shows beside it."""
    for end in (link, link.removeprefix("ipfs://")):
        if text.endswith(end):
            return text.removesuffix(end).rstrip(" ,")
    return text


def group_facts(panel: FactsPanel) -> list[tuple[str, list[Fact]]]:
    """Return the facts with those of one label together, in their order."""
    return [(label, list(facts)) for label, facts in groupby(panel.facts, key=lambda fact: fact.label)]
