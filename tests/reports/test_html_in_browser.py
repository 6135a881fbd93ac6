"""The page in a real browser: complete without a network, also in the sandboxed frame of MLflow's artifact viewer."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import reports
from reports.data import ReportData, Run
from reports.html.page import render_page
from support.browser import Browser, PageServer, run_browser, serve_pages
from support.report_samples import START_MS, complete_report, many_runs, odd_report, series

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

AXE = Path(__file__).parent.parent / "support/vendor/axe-core/axe.min.js"
SAMPLES = ["complete", "odd", "many", "lineage", "empty", "spike"]
SPIKE = 400_000, 87.5  # its step and value
# As MLflow shows an HTML artifact: a blob in a frame that may run scripts, and nothing else.
FRAME = """<!DOCTYPE html><html lang="en"><title>viewer</title><script>
fetch("{name}.html").then((answer) => answer.blob()).then((blob) => {{
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "allow-scripts");
  frame.title = "artifact";
  frame.style = "width: 1200px; height: 800px";
  frame.src = URL.createObjectURL(blob);
  document.body.append(frame);
}});
</script><link rel="icon" href="data:,"><body></body></html>"""


def long_run() -> ReportData:
    values = np.random.default_rng(5).normal(1, 0.1, 1_000_000)
    values[SPIKE[0]] = SPIKE[1]
    metrics = {"train_loss": series("train_loss", values, interval_ms=10)}
    run = Run("b" * 32, "long", "1", "e", "FINISHED", START_MS, None, "ada", metrics=metrics)
    return ReportData("a run of 1,000,000 points", "sqlite:///mlflow.db", (run,))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """A server of the samples, and of viewers that show them in a sandboxed frame."""
    boards = {
        "complete": reports.plot_comprehensive_dashboard(complete_report()),
        "odd": reports.plot_comprehensive_dashboard(odd_report()),
        "many": reports.plot_comprehensive_dashboard(many_runs(8)),
        "lineage": reports.plot_lineage(complete_report()),
        "empty": reports.plot_comprehensive_dashboard(ReportData("nothing", "", ())),
        "spike": reports.plot_comprehensive_dashboard(long_run()),
    }
    directory = tmp_path_factory.mktemp("site")
    for name, board in boards.items():
        (directory / f"{name}.html").write_bytes(render_page(board))
        (directory / f"viewer-{name}.html").write_text(FRAME.format(name=name))
    with serve_pages(directory) as pages:
        yield pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with run_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


def show(browser: Browser, site: PageServer, name: str, *, in_frame: bool = False, width: int = 1300) -> None:
    """Open a sample and wait until its charts are drawn."""
    browser.emulate()
    browser.open(f"{site.url}/{'viewer-' if in_frame else ''}{name}.html", width=width)
    if in_frame:
        browser.wait("return document.querySelector('iframe')", "the frame")
        browser.enter_frame()
    browser.wait("return document.documentElement.dataset.drawn !== undefined", "the charts")


@pytest.mark.parametrize("in_frame", [False, True], ids=["window", "frame"])
@pytest.mark.parametrize("name", SAMPLES)
def test_a_page_is_complete_and_loads_nothing(browser: Browser, site: PageServer, name: str, in_frame: bool) -> None:
    show(browser, site, name, in_frame=in_frame)
    drawn = browser.run(
        """return {
            wanted: Object.keys(JSON.parse(document.getElementById("charts").textContent).charts).length,
            drawn: Number(document.documentElement.dataset.drawn),
            failed: document.querySelectorAll(".failed").length,
            blank: [...document.querySelectorAll(".chart")].filter((one) => !one.querySelector(".trace path, .points path")).length,
            without_numbers: [...document.querySelectorAll(".chart")].filter((one) => !one.parentElement.querySelector("table")).length,
            foreign: document.querySelectorAll("img, link, iframe, object, script[src]").length,
            loaded: performance.getEntriesByType("resource").length,
            wide: document.documentElement.scrollWidth > innerWidth,
        }"""
    )
    wanted = drawn.pop("wanted")
    assert drawn.pop("drawn") == wanted
    assert (wanted > 0) == (name not in {"lineage", "empty"})
    assert drawn == {"failed": 0, "blank": 0, "without_numbers": 0, "foreign": 0, "loaded": 0, "wide": False}
    assert browser.read_messages() == []
    own = (f"{site.url}/{name}.html", f"{site.url}/viewer-{name}.html", "blob:", "data:", "about:")
    assert [url for url in browser.read_requests() if not url.startswith(own)] == []


def find_issues(browser: Browser) -> list[str]:
    """Return the serious issues of accessibility that axe-core finds."""
    browser.run(AXE.read_text() + ";window.axe = axe;")
    found = browser.send(
        "execute/async",
        {"script": "axe.run().then((r) => arguments[0](r.violations), (e) => arguments[0](String(e)))", "args": []},
    )
    assert isinstance(found, list), found
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:200]}: {node['failureSummary']}"
        for one in found
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", SAMPLES[:5])
def test_axe_finds_no_serious_issue(browser: Browser, site: PageServer, name: str, scheme: str) -> None:
    show(browser, site, name)
    browser.emulate(prefers_color_scheme=scheme)
    browser.wait(f"return getComputedStyle(document.documentElement).colorScheme === '{scheme}'", scheme)
    assert find_issues(browser) == []


def test_axe_finds_no_serious_issue_in_the_sandboxed_frame(browser: Browser, site: PageServer) -> None:
    show(browser, site, "complete", in_frame=True)
    assert find_issues(browser) == []


def test_the_policy_stops_other_scripts(browser: Browser, site: PageServer) -> None:
    show(browser, site, "odd")
    hacked = browser.run(
        """const script = document.createElement("script");
        script.textContent = "window.hacked = true";
        document.body.append(script);
        return window.hacked"""
    )
    assert hacked is None
    assert "Content Security Policy" in "".join(browser.read_messages())


@pytest.mark.parametrize("in_frame", [False, True], ids=["window", "frame"])
def test_a_table_is_sorted_by_numbers(browser: Browser, site: PageServer, in_frame: bool) -> None:
    show(browser, site, "many", in_frame=in_frame)
    sort = """const table = document.querySelector("#%s table");
        const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith(arguments[0]));
        const heading = table.tHead.rows[0].cells[at];
        heading.querySelector("button").click();
        return [heading.getAttribute("aria-sort"), [...table.tBodies[0].rows].map((row) => Number(row.cells[at].textContent))]"""
    panel = browser.run("return document.querySelector('figure:has(table.sortable)').id")
    for order in ("ascending", "descending"):
        said, values = browser.run(sort % panel, "learning_rate")
        assert said == order
        assert len(values) == 8
        assert values == sorted(values, reverse=order == "descending")


def test_a_line_is_hidden_and_shown_by_keyboard(browser: Browser, site: PageServer) -> None:
    show(browser, site, "complete")
    count = "return document.querySelectorAll('#training-1-chart .scatterlayer .trace').length"
    assert browser.run(count) == 2
    browser.run("document.querySelector('#training-1 .legend button').focus()")
    browser.press("\ue00d")  # space
    browser.wait(f"{count} === 1", "one line")
    assert browser.run("return document.activeElement.getAttribute('aria-pressed')") == "false"
    browser.press("\ue00d")
    browser.wait(f"{count} === 2", "both lines")


def test_every_control_is_reached_by_the_tab_key(browser: Browser, site: PageServer) -> None:
    show(browser, site, "lineage")
    reached = set()
    for _ in range(12):
        browser.press("\ue004")
        reached.add(browser.run("return document.activeElement.textContent.trim()"))
    assert {"Skip to the report", "Dark", "name", "kind"} <= reached


def test_links_inside_the_page_work_in_the_frame(browser: Browser, site: PageServer) -> None:
    show(browser, site, "complete", in_frame=True)
    top = browser.run(
        """const link = [...document.querySelectorAll("nav a")].at(-1);
        link.click();
        return [document.activeElement.textContent, document.activeElement.getBoundingClientRect().top]"""
    )
    assert top[0] == "Details"
    assert -1 < top[1] < 800


def test_links_to_mlflow_are_links_and_cids_are_text_to_copy(browser: Browser, site: PageServer) -> None:
    show(browser, site, "odd")
    links = browser.run(
        "return [...document.querySelectorAll('main a:not([href^=\"#\"])')].map((one) => [one.href, one.rel])"
    )
    assert links
    address = f"http://tracking.example:5000/#/experiments/1/runs/{'f' * 32}"
    assert {tuple(link) for link in links} == {(address, "noopener noreferrer")}
    show(browser, site, "complete")
    copied = browser.run(
        "const one = document.querySelector('.copy'); getSelection().selectAllChildren(one); return String(getSelection())"
    )
    assert copied.startswith("ipfs://bafy")


def colours(browser: Browser) -> list[str]:
    """Return the background of the page, and the colour of the first line of the first chart."""
    found: list[str] = browser.run(
        """return [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector(".js-line")).stroke]"""
    )
    return found


LIGHT, DARK = ["rgb(255, 255, 255)", "rgb(0, 114, 178)"], ["rgb(20, 22, 26)", "rgb(86, 180, 233)"]


def test_dark_and_light_by_the_system_and_by_the_button(browser: Browser, site: PageServer) -> None:
    show(browser, site, "complete")
    assert colours(browser) == LIGHT
    browser.emulate(prefers_color_scheme="dark")
    browser.wait("return document.getElementById('theme').textContent === 'Light'", "dark")
    browser.wait(
        "return getComputedStyle(document.querySelector('.js-line')).stroke === 'rgb(86, 180, 233)'", "dark lines"
    )
    assert colours(browser) == DARK
    browser.run("document.getElementById('theme').click()")
    browser.wait(
        "return getComputedStyle(document.querySelector('.js-line')).stroke === 'rgb(0, 114, 178)'", "light lines"
    )
    assert colours(browser) == LIGHT
    assert browser.read_messages() == []


def test_a_dark_page_is_printed_light(browser: Browser, site: PageServer) -> None:
    show(browser, site, "complete")
    browser.run("document.getElementById('theme').click(); window.printed = []")
    browser.wait(
        "return getComputedStyle(document.querySelector('.js-line')).stroke === 'rgb(86, 180, 233)'", "dark lines"
    )
    browser.run(
        """addEventListener("beforeprint", () => window.printed.push(
        getComputedStyle(document.querySelector(".js-line")).stroke))"""
    )
    assert base64.b64decode(browser.print_page()).startswith(b"%PDF")
    assert browser.run("return window.printed") == [LIGHT[1]]
    browser.emulate(media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == LIGHT[0]
    browser.emulate()
    browser.wait(
        "return getComputedStyle(document.querySelector('.js-line')).stroke === 'rgb(86, 180, 233)'", "dark again"
    )


@pytest.mark.parametrize("name", ["complete", "odd", "many"])
def test_a_phone_scrolls_in_one_direction(browser: Browser, site: PageServer, name: str) -> None:
    show(browser, site, name)
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.send("goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})
    try:
        browser.wait("return innerWidth === 390", "a narrow window")
        browser.wait(
            "return [...document.querySelectorAll('.main-svg')].every((one) => one.clientWidth <= 390)", "charts"
        )
        assert browser.run("return document.documentElement.scrollWidth") == 390
    finally:
        browser.send("goog/cdp/execute", {"cmd": "Emulation.clearDeviceMetricsOverride", "params": {}})


def test_a_spike_of_one_point_in_a_million_is_drawn(browser: Browser, site: PageServer) -> None:
    show(browser, site, "spike")
    drawn: dict[str, Any] = json.loads(
        browser.run(
            """const trace = [...document.querySelectorAll(".chart")].map((one) => one.data[0]).find((one) => one.y.length > 2);
            const at = trace.y.indexOf(Math.max(...trace.y));
            return JSON.stringify({x: trace.x[at], y: trace.y[at], count: trace.y.length})"""
        )
    )
    assert (drawn["x"], drawn["y"]) == SPIKE
    assert drawn["count"] <= 2000
