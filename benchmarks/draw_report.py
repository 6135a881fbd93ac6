"""Benchmark: how fast Chromium draws the report of a run with 1,000,000 points, compared with plotly that gets all points.

The run has loss and accuracy of training and validation in MLflow's SQLite database, with spikes of one point in both losses:
two charts of two lines. A new process reads the database and writes ``report.html``; its peak memory and the size of the page
are compared with their limits. Then Chromium opens, in interleaved pairs, the page and one that plotly's Python package writes
from all points: with the whole plotly.js, its default, and with the smaller bundle that a report contains. The time is that from
the start of the navigation until all charts are drawn (plotly's promises, which it keeps after ``plotly_afterplot``) and the next
frame has begun. Every page has to show the spikes.

Usage: python benchmarks/draw_report.py [POINTS]
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from support.browser import Browser

ROOT: Final = Path(__file__).resolve().parent.parent
MAX_PAGE_MB: Final = 3.0
MAX_MEMORY_MB: Final = 1000.0
CHARTS: Final = (("train_loss", "val_loss"), ("train_accuracy", "val_accuracy"))
SPIKES: Final = {"train_loss": (0.4, 87.5), "val_loss": (0.7, 912.25)}
"""Place of each spike as a share of the points, and its value."""

OBSERVE: Final = """
new MutationObserver((_, observer) => {
  observer.disconnect();
  requestAnimationFrame(() => requestAnimationFrame(() => { window.drawnMs = performance.now(); }));
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-drawn"] });
"""
BUNDLE: Final = ROOT / "reports/html/vendor/plotly-basic.min.js"
PAGE: Final = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>plotly</title></head><body>{}</body></html>'
)
DRAWN: Final = "document.documentElement.dataset.drawn = 1"


def make_histories(points: int) -> dict[str, NDArray[np.float64]]:
    """Return four metrics of a training, with as many points together as asked for."""
    import numpy as np  # noqa: PLC0415 - must not be imported in the measured process

    rng = np.random.default_rng(0)
    count = points // 4
    at = np.linspace(0, 1, count)
    histories = {}
    for stage, noise in (("train", 0.1), ("val", 0.05)):
        histories[f"{stage}_loss"] = (2 * np.exp(-5 * at) + 0.1) * rng.lognormal(0, noise, count)
        histories[f"{stage}_accuracy"] = 1 - 0.9 * np.exp(-5 * at) - rng.uniform(0, noise / 2, count)
    for key, (share, value) in SPIKES.items():
        histories[key][int(share * count)] = value
    return histories


def write_report(database: Path, run_id: str, directory: Path) -> None:
    """Write the page, then print the peak memory of this process in MB. Called in a separate process."""
    from publish_memory import read_peak_kib  # noqa: PLC0415
    from reports import collect, export  # noqa: PLC0415 - the memory of the package is measured, too

    export(collect(run_ids=[run_id], tracking_uri=f"sqlite:///{database}"), directory, "html")
    print(json.dumps(read_peak_kib() * 1024 / 1e6))


def write_plotly_page(file: Path, histories: Mapping[str, NDArray[np.float64]], *, uses_report_bundle: bool) -> None:
    """Write a page of the charts of all points as plotly writes it, with the whole plotly.js or with our bundle."""
    import numpy as np  # noqa: PLC0415 - must not be imported in the measured process
    import plotly.graph_objects as go  # noqa: PLC0415

    parts = [f"<script>{BUNDLE.read_text(encoding='utf-8')}</script>"] if uses_report_bundle else []
    for number, keys in enumerate(CHARTS):
        lines = [go.Scatter(x=np.arange(len(histories[key])), y=histories[key], mode="lines", name=key) for key in keys]
        is_last = number == len(CHARTS) - 1
        parts.append(
            go.Figure(lines, {"height": 290}).to_html(
                full_html=False,
                include_plotlyjs=not uses_report_bundle and number == 0,
                post_script=DRAWN if is_last else None,
            )
        )
    file.write_text(PAGE.format("".join(parts)), encoding="utf-8")


def measure_drawing(browser: Browser, page: Path) -> float:
    """Return the seconds from the start of the navigation until the charts are drawn. End the benchmark if one is not."""
    browser.open(page.as_uri(), width=1280)
    browser.wait("return window.drawnMs !== undefined", "the charts")
    drawn = browser.run(
        """const charts = [...document.querySelectorAll(".js-plotly-plot")];
        const found = (value) => charts.some((one) => one._fullData.some((trace) => trace.y.includes(value)));
        return { seconds: window.drawnMs / 1000, spikes: arguments[0].every(found),
                 lines: charts.map((one) => one.querySelectorAll(".scatterlayer .js-line").length) }""",
        [value for _, value in SPIKES.values()],
    )
    if drawn["lines"] != [len(keys) for keys in CHARTS] or not drawn["spikes"]:
        sys.exit(f"{page.name} has {drawn}, and not all lines and spikes")
    return float(drawn["seconds"])


def report_limit(measure: str, value: float, limit: float, name: str) -> None:
    """Print a measured value and its limit."""
    line = {"benchmark": name, "measure": measure, "ours": round(value, 2), "peer": limit, "peer_name": "the limit"}
    print(json.dumps(line | {"ratio": round(value / limit, 3), "pairs": 1}), flush=True)


def main(points: int) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from harness import compare  # noqa: PLC0415 - must not be imported in the measured process
    from recorded_database import make_database  # noqa: PLC0415
    from support.browser import run_browser  # noqa: PLC0415

    name = f"report_of_{points}_points"
    if not all(map(shutil.which, ("chromium", "chromedriver"))):
        print(json.dumps({"benchmark": name, "not_run": "chromium and chromedriver are not installed"}))
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as scratch:
        directory = Path(scratch)
        histories = make_histories(points)
        [run_id] = make_database(directory / "mlflow.db", [histories])
        command = [sys.executable, __file__, "write", str(directory / "mlflow.db"), run_id, str(directory)]
        memory = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        ours = directory / "report.html"
        report_limit("size of report.html, MB", ours.stat().st_size / 1e6, MAX_PAGE_MB, name)
        report_limit("peak memory of the process that writes it, MB", memory, MAX_MEMORY_MB, name)
        with run_browser(directory) as browser:
            script = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": OBSERVE}}
            browser.send("goog/cdp/execute", script)
            for bundle, uses_report_bundle in (("its own plotly.js", False), ("the bundle of the report", True)):
                plain = directory / "plain.html"
                write_plotly_page(plain, histories, uses_report_bundle=uses_report_bundle)
                compare(
                    name,
                    "seconds until drawn in Chromium",
                    partial(measure_drawing, browser, ours),
                    partial(measure_drawing, browser, plain),
                    f"the same charts with all points by plotly and {bundle}",
                )


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["write"]:
        write_report(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
