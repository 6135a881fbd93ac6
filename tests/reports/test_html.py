"""The HTML page without a browser: text stays text, data stays data, and equal data gives equal bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reports
from reports.data import Missing, ReportData, Run
from reports.exporting import export
from reports.figures import Axis, BarGroup, BarsPanel, Cell, Dashboard, HeatMapPanel, Line, LinesPanel, Section
from reports.html import drawings
from reports.html.chart_data import build_chart_data, encode_array, to_json
from reports.html.page import render_page, sort_value
from reports.html.tables import build_table
from support.report_samples import HOSTILE, START_MS, complete_report, many_runs, odd_report, series

HTML = Path(reports.__file__).parent / "html"
FORMATS = {"i4": "i", "f4": "f", "f8": "d"}


class Page(HTMLParser):
    """The elements of a page, the values of their attributes, and its scripts."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self._is_in_script = False
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self._is_in_script = tag == "script"
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the name that HTMLParser gives it
        self._is_in_script = False

    def handle_data(self, data: str) -> None:
        if self._is_in_script:
            self.scripts.append(data)


def panel_of(*y: float, name: str = "time", axis: Axis | None = None) -> LinesPanel:
    line = Line(name, np.arange(float(len(y))), np.array(y), len(y))
    return LinesPanel(
        panel_id="p", title="p", sentence="s", x=Axis("epoch"), y=axis or Axis("time", "s"), lines=(line,)
    )


@pytest.mark.parametrize(
    ("panel", "starts_at_zero"),
    [
        (panel_of(1, 2), True),
        (panel_of(0, np.nan, -np.inf, np.inf), True),
        (panel_of(1, -2), False),
        (panel_of(1, 2, axis=Axis("loss")), False),
        (panel_of(1, 2, axis=Axis("time", "s", is_log=True)), False),
        (panel_of(1, 2, axis=Axis("use", "%", low=0, high=100)), False),
    ],
)
def test_an_axis_of_sizes_and_times_starts_at_zero(panel: LinesPanel, starts_at_zero: bool) -> None:
    assert panel.starts_at_zero is starts_at_zero
    assert build_chart_data([panel])["charts"]["p"]["y"]["zero"] is starts_at_zero


def test_the_only_line_is_in_the_legend_unless_the_title_or_an_axis_names_it() -> None:
    assert [panel_of(1, name=name).has_legend for name in ("p", "epoch", "time", "other")] == [False] * 3 + [True]


def decode(stored: Any) -> list[float]:
    if isinstance(stored, list):
        return [np.nan if value is None else value for value in stored]
    packed = base64.b64decode(stored["base64"])
    return [value for (value,) in struct.iter_unpack(f"<{FORMATS[stored['kind']]}", packed)]


@given(st.lists(st.floats() | st.integers(-(2**40), 2**40).map(float), max_size=40))
def test_arrays_lose_nothing_but_what_kind_of_gap_it_was(values: list[float]) -> None:
    array = np.array(values, np.float64)
    stored = json.loads(to_json(encode_array(array)))
    expected = np.where(np.isfinite(array), array, np.nan)
    np.testing.assert_array_equal(np.array(decode(stored), np.float64), expected)


def test_long_arrays_are_base64_of_few_bytes() -> None:
    steps = encode_array(np.arange(100_000, 102_000, dtype=np.float64))
    assert isinstance(steps, dict)
    assert steps["kind"] == "i4"
    halves = encode_array(np.arange(2000, dtype=np.float64) * 0.5 + 0.125)
    assert isinstance(halves, dict)
    assert halves["kind"] == "f4"
    assert encode_array(np.array([1.0, 2.0])) == [1, 2]


def test_a_shared_array_is_in_the_page_once() -> None:
    x = np.arange(5.0)
    lines = tuple(Line(name, x.copy(), x * 2, 5) for name in "ab")
    panel = LinesPanel(panel_id="p", title="t", sentence="s", x=Axis("step"), y=Axis("y"), lines=lines)
    assert len(build_chart_data([panel])["arrays"]) == 2


def test_json_has_no_markup() -> None:
    text = to_json({"name": f"{HOSTILE}\u2028\u2029<!--"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["name"].startswith(HOSTILE)


def test_hostile_names_are_text() -> None:
    odd, plain = (
        Page(render_page(reports.plot_comprehensive_dashboard(data))) for data in (odd_report(), complete_report())
    )
    assert set(odd.elements) <= set(plain.elements) | {"a"}
    assert "img" not in odd.elements
    assert not [name for name, _ in odd.attributes if name.startswith("on")]
    links = [value for name, value in odd.attributes if name in {"href", "src"}]
    assert all(link.startswith(("#", "http://tracking.example:5000/")) for link in links)
    assert any("onerror" in value for name, value in odd.attributes if name == "aria-label")


def test_the_policy_has_the_hashes_of_the_scripts_of_the_page() -> None:
    page = Page(render_page(reports.plot_comprehensive_dashboard(complete_report())))
    policy = next(value for name, value in page.attributes if value.startswith("default-src 'none'"))
    for script in page.scripts[1:]:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert len(page.scripts) == 3
    assert "unsafe-eval" not in policy


def test_the_drawing_script_is_in_a_page_with_charts_only() -> None:
    assert len(render_page(reports.plot_lineage(complete_report()))) < 60_000
    with_charts = render_page(reports.plot_comprehensive_dashboard(complete_report()))
    assert with_charts.count(b"plotly.js (basic - minified)") == 1


def test_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    first = export(complete_report(), tmp_path / "a", "html")
    again = reports.generate_html_report(complete_report(), tmp_path / "b.html")
    assert [file.name for file in first] == ["report.html"]
    assert first[0].read_bytes() == again.read_bytes()


def test_a_million_points_make_a_small_page() -> None:
    metrics = {"train_loss": series("train_loss", np.random.default_rng(1).normal(size=1_000_000), interval_ms=1)}
    run = Run("b" * 32, "long", "1", "e", "FINISHED", START_MS, None, "ada", metrics=metrics)
    assert len(render_page(reports.plot_comprehensive_dashboard(ReportData("long", "", (run,))))) < 3_000_000


def test_fifty_runs_make_a_page_under_three_megabytes() -> None:
    assert len(render_page(reports.plot_comprehensive_dashboard(many_runs(50)))) < 3_000_000


def test_a_partial_report_says_what_is_missing() -> None:
    data = complete_report()
    partial = ReportData(
        data.title, data.source, data.runs, missing=(Missing("the metric val_loss", "the server went away"),)
    )
    page = render_page(reports.plot_comprehensive_dashboard(partial)).decode()
    assert "the metric val_loss" in page
    assert "the server went away" in page


def test_a_panel_without_data_says_why() -> None:
    page = render_page(reports.plot_comprehensive_dashboard(odd_report())).decode()
    assert page.count('class="panel empty"') + page.count('class="panel wide empty"') == page.count("No data: ") > 3


def test_the_numbers_of_charts_are_in_tables() -> None:
    x = np.arange(3.0)
    lines = (Line("training", x, np.array([3.0, np.nan, 1.0]), 3), Line("validation", x, x, 3))
    panel = LinesPanel(panel_id="p", title="t", sentence="s", x=Axis("epoch"), y=Axis("loss"), lines=lines)
    table = build_table(panel)
    assert table.headings == ("epoch", "training", "validation")
    assert table.rows == (("0", "3", "0"), ("1", "NaN", "1"), ("2", "1", "2"))
    long = Line("long", np.arange(100.0), np.arange(100.0) / 2, 5000)
    summary = build_table(LinesPanel(panel_id="p", title="t", sentence="s", x=Axis("step"), y=Axis("y"), lines=(long,)))
    assert summary.rows == (("long", "5,000", "0 at 0", "0 at 0", "49.5 at 99", "49.5 at 99"),)
    bars = BarsPanel(
        panel_id="b", title="t", sentence="s", x=Axis("size"), y=Axis("time", "s"),
        categories=("1", "8"), groups=(BarGroup("p50", np.array([1.0, 2.5])),),
    )  # fmt: skip
    assert build_table(bars).rows == (("1", "1"), ("8", "2.5"))


def test_a_heat_map_merges_equal_cells_and_leaves_gaps() -> None:
    panel = HeatMapPanel(
        panel_id="h", title="t", sentence="s", x=Axis("time", "s"), edges=np.linspace(10, 28, 6), rows=("node",),
        values=np.array([[0.0, 0.0, np.nan, 100.0, 50.0]]), scale=Axis("use", "%", low=0, high=100),
    )  # fmt: skip
    [(name, cells)] = drawings.heat_rows(panel)
    assert name == "node"
    assert [(cell.start, cell.width, cell.colour) for cell in cells] == [
        (0, 2, "#ffffff"), (3, 1, "#08306b"), (4, 1, "#6baed6"),
    ]  # fmt: skip
    assert drawings.ticks_of(panel)[0] == ("10", 0.0)
    assert b"<rect" in render_page(Dashboard("resources", "t", "s", (Section("s", (panel,)),)))


def test_a_sparkline_has_gaps_and_dots() -> None:
    path = drawings.spark_path(np.array([1.0, np.nan, 2.0, 3.0]))
    assert path == "M2.0 22.0h.1M79.3 12.0L118.0 2.0"
    assert drawings.spark_path(np.array([np.nan])) == ""


@pytest.mark.parametrize(
    ("value", "expected"), [(None, ""), (np.nan, ""), (np.inf, "Infinity"), (-np.inf, "-Infinity"), (1.5, "1.5")]
)
def test_values_to_sort_by(value: float | None, expected: str) -> None:
    assert sort_value(Cell("text", value)) == expected


def test_the_vendored_script_is_the_one_that_its_note_names() -> None:
    script = (HTML / "vendor/plotly-basic.min.js").read_bytes()
    note = (HTML / "vendor/README.md").read_text()
    assert hashlib.sha256(script).hexdigest() in note
    assert re.findall(r"basic - minified\) v([\d.]+)", script[:200].decode())[0] in note
    assert b"\r" not in script
    assert b"</script" not in script.lower()
    assert "MIT License" in (HTML / "vendor/LICENSE").read_text()
