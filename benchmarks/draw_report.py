"""Benchmark: how fast Chromium draws the report of a run with 1,000,000 points, compared with plotly that gets all points.

The run has loss and accuracy of training and validation in MLflow's SQLite database, with spikes of one point in both losses:
two charts of two lines. A new process reads the database and writes ``report.html``; its peak memory and the size of the page are compared with their limits. Then Chromium opens, in
interleaved pairs, the page and a page that draws the same charts from all points by the same bundle of plotly, with the
arrays encoded as plotly's Python package does. The time is that from the start of the navigation until all charts are drawn
(plotly's promises, which it keeps after ``plotly_afterplot``) and the next frame has begun. Every page has to show the spikes.

Usage: python benchmarks/draw_report.py [POINTS]
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
PLAIN_PAGE: Final = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>plain plotly</title>
<script>{plotly}</script></head><body>{places}<script>
const figures = {figures};
(async () => {{
  for (const [number, figure] of figures.entries()) {{
    await Plotly.newPlot(`chart-${{number}}`, figure.data, figure.layout, {{ responsive: true }});
  }}
  document.documentElement.dataset.drawn = figures.length;
}})();
</script></body></html>"""


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


def write_plain_page(file: Path, histories: Mapping[str, NDArray[np.float64]]) -> None:
    """Write a page that draws the charts from all points."""

    def trace(key: str) -> dict[str, Any]:
        x, y = encode(range(len(histories[key]))), encode(histories[key])
        return {"type": "scatter", "mode": "lines", "name": key, "x": x, "y": y}

    figures = [{"data": [trace(key) for key in keys], "layout": {"height": 290}} for keys in CHARTS]
    places = "".join(f'<div id="chart-{number}"></div>' for number in range(len(figures)))
    plotly = (ROOT / "reports/html/vendor/plotly-basic.min.js").read_text(encoding="utf-8")
    file.write_text(PLAIN_PAGE.format(plotly=plotly, places=places, figures=json.dumps(figures)), encoding="utf-8")


def encode(values: Any) -> dict[str, str]:  # noqa: ANN401 - whatever numpy takes
    """Return an array as plotly's Python package writes it: whole numbers in 4 bytes, others in 8."""
    import numpy as np  # noqa: PLC0415

    array = np.asarray(values)
    kind = "f8" if array.dtype.kind == "f" else "i4"
    return {"dtype": kind, "bdata": base64.b64encode(array.astype(f"<{kind}").tobytes()).decode("ascii")}


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
        ours, plain = directory / "report.html", directory / "plain.html"
        write_plain_page(plain, histories)
        report_limit("size of report.html, MB", ours.stat().st_size / 1e6, MAX_PAGE_MB, name)
        report_limit("peak memory of the process that writes it, MB", memory, MAX_MEMORY_MB, name)
        with run_browser(directory) as browser:
            script = {"cmd": "Page.addScriptToEvaluateOnNewDocument", "params": {"source": OBSERVE}}
            browser.send("goog/cdp/execute", script)
            compare(
                name,
                "seconds until drawn in Chromium",
                lambda: measure_drawing(browser, ours),
                lambda: measure_drawing(browser, plain),
                "the same charts by plotly, with all points",
            )


if __name__ == "__main__":
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if sys.argv[1:2] == ["write"]:
        write_report(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
