"""SVG and PNG: equal bytes, valid XML, titles for screen readers, nothing clipped, no browser and no pyplot."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import reports
from reports.data import DatasetInput, ReportData, Run
from reports.figures import Axis, Cell, Column, Line, LinesPanel, Marker, TablePanel
from reports.palette import DARK, LIGHT
from reports.static.extremes import leave_out_extremes
from reports.static.panels import build_figure
from reports.static.rendering import DPI, FORMATS, render_all, render_dashboard, render_panel
from reports.static.style import own_style
from reports.static.tables import MAX_ROWS
from reports.static.writing import write_png, write_svg
from support.report_samples import HOSTILE, complete_report, latency, many_runs, odd_report, series

if TYPE_CHECKING:
    from pathlib import Path

    from reports.figures import Dashboard, Panel
    from reports.static.rendering import Format

SVG = "{http://www.w3.org/2000/svg}"


def lines_panel(*lines: Line, markers: tuple[Marker, ...] = ()) -> LinesPanel:
    return LinesPanel(
        panel_id="p", title="Loss", sentence="The loss.", x=Axis("step"), y=Axis("loss"), lines=lines, markers=markers
    )


def line(y: list[float], name: str = "training") -> Line:
    return Line(name, np.arange(len(y), dtype=np.float64), np.array(y), len(y))


def pages() -> dict[str, Dashboard]:
    return {
        "complete": reports.plot_comprehensive_dashboard(complete_report()),
        "odd": reports.plot_comprehensive_dashboard(odd_report()),
        "comparison": reports.plot_comparison(many_runs(4)),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[bytes, dict[str, bytes]]]:
    """Some pages and their panels, as SVG."""
    return {name: render_all(page, "svg") for name, page in pages().items()}


def test_equal_data_gives_equal_bytes(drawn: dict[str, tuple[bytes, dict[str, bytes]]]) -> None:
    with mpl.rc_context({"font.size": 20, "svg.fonttype": "path", "axes.grid": False}):  # a user's own settings
        assert render_dashboard(pages()["odd"], "svg") == drawn["odd"][0]
    panel = next(panel for panel in pages()["complete"].panels if panel.title == "loss")
    assert render_panel(panel, "svg") == drawn["complete"][1][panel.panel_id]
    assert render_panel(panel, "png") == render_panel(panel, "png")


def test_bytes_are_equal_in_another_process() -> None:
    code = (
        "import hashlib, reports; from support.report_samples import complete_report; "
        "from reports.static.rendering import render_dashboard; "
        "page = reports.plot_inference_metrics(complete_report()); "
        "print(hashlib.sha256(render_dashboard(page, 'svg') + render_dashboard(page, 'png')).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_svg_is_valid_and_has_a_title_and_a_description_of_each_panel(
    drawn: dict[str, tuple[bytes, dict[str, bytes]]],
) -> None:
    for name, page in pages().items():
        root = ET.fromstring(drawn[name][0])
        titles = [element.findtext(f"{SVG}title") for element in root.iter(f"{SVG}svg")]
        for panel in page.panels:
            assert panel.title in titles
        for panel_id, content in drawn[name][1].items():
            element = ET.fromstring(content)
            title, description = element.find(f"{SVG}title"), element.find(f"{SVG}desc")
            assert title is not None
            assert description is not None
            assert element.get("role") == "img"
            assert element.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
            panel = next(panel for panel in page.panels if panel.panel_id == panel_id)
            assert (description.text or "").startswith(panel.sentence[:20])


def test_ids_are_unique_on_a_page(drawn: dict[str, tuple[bytes, dict[str, bytes]]]) -> None:
    root = ET.fromstring(drawn["complete"][0])
    clips = [element.get("id") for element in root.iter(f"{SVG}clipPath")]
    assert len(clips) == len(set(clips)) > 5
    titles = [element.get("id") for element in root.iter(f"{SVG}title") if element.get("id")]
    assert len(titles) == len(set(titles))


def test_svg_has_text_as_text_and_nothing_from_elsewhere(drawn: dict[str, tuple[bytes, dict[str, bytes]]]) -> None:
    for content, _ in drawn.values():
        text = content.decode()
        assert "time since the start" in text or "best val_loss" in text or "latency of a batch (ms" in text
        assert "<script" not in text
        assert "<img" not in text
        assert "metadata" not in text
        for place in ("http://", "https://"):
            links = {part.split('"')[0] for part in text.split(place)[1:]}
            assert links <= {
                "www.w3.org/2000/svg",
                "www.w3.org/1999/xlink",
                "tracking.example:5000/#/experiments/1/runs/" + "f" * 32,
            }


def test_hostile_names_are_text(drawn: dict[str, tuple[bytes, dict[str, bytes]]]) -> None:
    root = ET.fromstring(drawn["odd"][0])
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert shown in texts  # with its dollar signs: no formula


def test_lineage_nodes_are_links(drawn: dict[str, tuple[bytes, dict[str, bytes]]]) -> None:
    root = ET.fromstring(drawn["complete"][1]["lineage-graph"])
    links = {element.get("{http://www.w3.org/1999/xlink}href") for element in root.iter(f"{SVG}a")}
    assert {link for link in links if link} == {"ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"}


def assert_not_clipped(panel: Panel) -> None:
    """Check that all text of a panel is inside of it, and that no text covers the title or the sentence."""
    with own_style("t"):
        figure = build_figure(panel)
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw_without_rendering()
        inside = figure.bbox
        heading = min(text.get_window_extent(renderer).y0 for text in figure.texts[:2])
        for axes in figure.axes:
            box = axes.get_tightbbox(renderer)
            if box is None:
                continue
            assert box.x0 >= inside.x0 - 1, panel.panel_id
            assert box.x1 <= inside.x1 + 1, panel.panel_id
            assert box.y0 >= inside.y0 - 1, panel.panel_id
            assert box.y1 <= heading + 1, panel.panel_id
        for text in figure.texts:
            box = text.get_window_extent(renderer)
            assert box.x1 <= inside.x1, (panel.panel_id, text.get_text())
            assert box.y0 >= inside.y0 - 1, (panel.panel_id, text.get_text())


@pytest.mark.parametrize("name", ["complete", "odd", "comparison"])
def test_no_text_is_clipped_or_covers_the_heading(name: str) -> None:
    for panel in pages()[name].panels:
        assert_not_clipped(panel)


def test_long_names_long_findings_and_many_lines_are_not_clipped() -> None:
    long = "a_very_long_metric_name_" * 10
    run = Run(
        "r", "x" * 300, metrics={f"{long}{stage}_loss": series("k", [1, np.nan, 3]) for stage in ("/train", "/val")}
    )
    runs = (run, replace(run, run_id="s"), replace(run, run_id="t", name="y" * 90))
    for panel in reports.plot_training_metrics(ReportData("t" * 500, runs=runs)).panels:
        assert_not_clipped(panel)


def test_a_value_between_gaps_is_drawn_as_a_point() -> None:
    y = [float("nan")] * 61
    y[30] = 5.0
    with own_style("t"):
        axes = build_figure(lines_panel(line(y))).axes[0]
    markers = [drawn for drawn in axes.lines if drawn.get_marker() not in {None, "None"}]
    assert [drawn.get_ydata() for drawn in markers] == [[5.0]]


def test_names_that_matplotlib_takes_for_its_own_are_in_the_legend() -> None:
    with own_style("t"):
        axes = build_figure(lines_panel(line([1, 2], "_child0"), line([2, 1], "_nolegend_"))).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_child0", "_nolegend_"]


def test_lines_differ_by_dash_and_marker_and_not_by_colour_alone() -> None:
    lines = [replace(line([1, 2, 3], f"l{number}"), colour=0, dash=number) for number in range(5)]
    with own_style("t"):
        axes = build_figure(lines_panel(*lines)).axes[0]
    assert len({str(drawn.get_marker()) for drawn in axes.lines}) == 5


def contrast(colour: str, background: str) -> float:
    def luminance(text: str) -> float:
        parts = [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(colour), luminance(background)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_a_contrast_of_3_to_the_background() -> None:
    assert len(LIGHT) == len(DARK)
    assert all(contrast(colour, "#FFFFFF") >= 3 for colour in LIGHT)
    assert all(contrast(colour, "#1A1A1A") >= 3 for colour in DARK)


def test_a_png_has_the_size_of_the_page() -> None:
    image = Image.open(io.BytesIO(render_panel(lines_panel(line([1, 2])), "png")))
    assert image.width == pytest.approx(7.2 * DPI, abs=1)
    assert image.mode == "RGB"
    assert len(image.getcolors(100_000) or []) > 10


def test_a_long_table_says_what_it_left_out() -> None:
    rows = tuple((Cell(str(number)),) for number in range(MAX_ROWS + 7))
    panel = TablePanel(panel_id="t", title="T", sentence="A table.", columns=(Column("n"),), rows=rows)
    assert b"7 more rows are in the HTML, JSON and CSV files." in render_panel(panel, "svg")


def test_files_of_a_report_are_the_page_and_its_panels_with_data(tmp_path: Path) -> None:
    data = ReportData("t", runs=(Run("r", latencies=(latency(30, (4,)),)),))
    files = [*write_svg(data, tmp_path), *write_png(data, tmp_path)]
    names = {str(file.relative_to(tmp_path)) for file in files}
    assert {"report.svg", "report.png", "panels/inference-1-histogram.svg", "panels/inference-1-ecdf.png"} <= names
    assert "panels/training-loss.svg" not in names  # it has no data
    assert all(file.stat().st_size > 500 for file in files)


@pytest.mark.parametrize("kind", FORMATS)
def test_threads_may_draw_at_the_same_time(kind: Format) -> None:
    panels = [replace(lines_panel(line([1, number])), panel_id=f"p-{number}") for number in range(4)]
    expected = [render_panel(panel, kind) for panel in panels]
    found: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda number=number: found.update({number: render_panel(panels[number], kind)}))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == expected


def test_drawing_uses_no_pyplot_and_leaves_the_users_settings() -> None:
    code = (
        "import sys, matplotlib as mpl, reports; from support.report_samples import complete_report; "
        "from reports.static.rendering import render_dashboard; before = mpl.rcParams.copy(); "
        "render_dashboard(reports.plot_lineage(complete_report()), 'png'); "
        "assert 'matplotlib.pyplot' not in sys.modules; assert mpl.rcParams.copy() == before"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)


@pytest.mark.parametrize("character", ["\ufffe", "\uffff", "\x0b", "\ud800", "\u2028"])
def test_names_with_characters_that_xml_forbids_make_a_valid_svg(character: str) -> None:
    name, link = f"a{character}b", f"https://example.org/{character}"
    dataset = DatasetInput(name, "d", link, name)
    run = Run("r", name, params={name: name}, metrics={name: series(name, [1, 2])}, datasets=(dataset,))
    svg = render_dashboard(reports.plot_comprehensive_dashboard(ReportData(name, runs=(run,))), "svg")
    text = "".join(ET.fromstring(svg.decode()).itertext())
    assert "a\ufffdb" in text
    assert character not in text


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the rules: they compute with such values
@pytest.mark.parametrize("key", ["val_loss", "epoch_seconds"])
@pytest.mark.parametrize(
    "values", [[1e308, -1e308], [1e308, 1e-308, 1.7e308], [5e-324, 1.0], [1.0, 1e308, -1e308, 2.0]]
)
@pytest.mark.parametrize("kind", FORMATS)
def test_values_whose_range_overflows_are_left_out_and_counted(key: str, values: list[float], kind: Format) -> None:
    run = Run(
        "r", "r", metrics={key: series(key, values)}, system={"n": {"process_cpu_percentage": series("c", values)}}
    )
    dashboard = reports.plot_comprehensive_dashboard(ReportData("t", runs=(run,)))
    page = render_dashboard(dashboard, kind)
    if kind == "svg" and max(values) > 1e300:
        assert " not drawn: beyond 1e+300" in "".join(ET.fromstring(page.decode()).itertext())


def test_ordinary_values_are_drawn_beside_extreme_ones() -> None:
    x = np.arange(4.0)
    panel = lines_panel(Line("a", x, np.array([1.0, 1e308, np.inf, 2.0]), 4))
    kept = leave_out_extremes(panel)
    assert isinstance(kept, LinesPanel)
    np.testing.assert_array_equal(kept.lines[0].y, [1.0, np.nan, np.nan, 2.0])
    assert kept.sentence.startswith(panel.sentence)
    assert "1 value is not drawn" in kept.sentence
    alone = leave_out_extremes(lines_panel(Line("a", x, np.full(4, -1e308), 4)))
    assert "4 values are not drawn" in alone.empty_reason
