"""Make the pictures of reports in ``docs/images``: train the digits examples, and photograph their dashboards in Chromium.

::

    python tools/make_pictures.py

Five trainings by Lightning and one by Keras, with different parameters, take some minutes. They have more epochs than the
examples, so that there is something to see of the resources.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from support.browser import Browser

PROJECT: Final = Path(__file__).resolve().parent.parent
IMAGES: Final = PROJECT / "docs" / "images"
WIDTH: Final = 1180
PAGE_HEIGHT: Final = 8000
"""Of the window: higher than any page, so that nothing moves while a picture is taken."""
MODEL: Final = "digits-keras/1"
EXPERIMENT: Final = "digits"
LIGHTNING: Final = ((64, 1e-3, 64), (256, 1e-4, 64), (512, 1e-2, 128), (128, 3e-3, 32), (512, 1e-3, 64))
"""Hidden units, learning rate and batch size of each training."""

TRAIN: Final = """
import sys
script, epochs, *options = sys.argv[1:]
sys.argv[:] = [script + ".py"]  # MLflow's tag of the program
module = __import__(script)
module.EPOCHS = int(epochs)
if options:
    module.HIDDEN, module.LEARNING_RATE, module.BATCH_SIZE = int(options[0]), float(options[1]), int(options[2])
module.train(module.Path.cwd())
"""


def train(directory: Path) -> None:
    """Train all models, one process each, in a new MLflow database and a new store."""
    scripts = [("train", 12, *options) for options in LIGHTNING] + [("train_keras", 40)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "examples" / "digits")}
    for number, script in enumerate(scripts, 1):
        print(f"training {number} of {len(scripts)}", flush=True)
        command = [sys.executable, "-c", TRAIN, *map(str, script)]
        subprocess.run(command, cwd=directory, env=environment, check=True, capture_output=True)


def photograph(browser: Browser, page: Path, name: str, heading: str | None, height: int) -> None:
    """Save a part of a page as ``report-<name>.png``.

    Args:
        browser: Chromium.
        page: the page.
        name: name of the picture.
        heading: the part begins with this heading; None for the top of the page.
        height: height of the part in CSS pixels.
    """
    browser.open(page.as_uri(), width=WIDTH, height=PAGE_HEIGHT)
    browser.wait("return document.documentElement.dataset.drawn !== undefined", f"the charts of {page.name}")
    top = browser.run(
        """const found = [...document.querySelectorAll("h2")].find((one) => one.textContent === arguments[0]);
        return found ? found.getBoundingClientRect().top + scrollY - 12 : 0""",
        heading,
    )
    clip = {"x": 0, "y": top, "width": WIDTH, "height": height, "scale": 1}
    parameters = {"clip": clip}
    found = browser.send("goog/cdp/execute", {"cmd": "Page.captureScreenshot", "params": parameters})
    (IMAGES / f"report-{name}.png").write_bytes(base64.b64decode(found["data"]))


def main() -> None:
    """Train, write the dashboards, and take the pictures."""
    sys.path.insert(0, str(PROJECT / "tests"))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ |= {
            "MLFLOW_TRACKING_URI": f"ipfs+sqlite:///{directory / 'mlflow.db'}",
            "MLFLOW_IPFS_STORE": f"local:{directory / 'store'}",
            "MLFLOW_IPFS_RUNLOG": str(directory / "runlog"),
        }
        train(directory)
        from reports import collect, create_visualization  # noqa: PLC0415 - sys.path is set first
        from support.browser import run_browser  # noqa: PLC0415

        run, runs, lineage = (directory / f"{name}.html" for name in ("run", "comparison", "lineage"))
        create_visualization(collect(model=MODEL)).plot_comprehensive_dashboard().save(run)
        experiment = create_visualization(collect(experiment=EXPERIMENT))
        experiment.plot_comparison().save(runs)
        experiment.plot_lineage().save(lineage)
        with run_browser(directory) as browser:
            photograph(browser, run, "overview", None, 980)
            photograph(browser, run, "training", "Losses and qualities", 960)
            photograph(browser, run, "inference", "Inference (predict)", 885)
            photograph(browser, run, "resources", "Resources", 970)
            photograph(browser, runs, "comparison", None, 1100)
            photograph(browser, lineage, "lineage", None, 1040)


if __name__ == "__main__":
    main()
