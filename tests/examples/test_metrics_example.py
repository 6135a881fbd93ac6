"""The example that records a training by hand and writes its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "metrics_and_reports.py"


def test_it_writes_every_format(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "out"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"inference.svg", "dashboard.png", "training_report.html", "training_results"} == {
        path.name for path in (tmp_path / "out").iterdir()
    }
    results = tmp_path / "out/training_results"
    assert {"report.html", "report.json", "report.png", "report.svg"} <= {path.name for path in results.iterdir()}
    [run] = json.loads((results / "report.json").read_bytes())["runs"]
    accuracy = next(value for key, value in run["metrics"].items() if "val_accuracy" in key)
    assert accuracy["values"][-1] > 0.9
    assert "<html" in (tmp_path / "out/training_report.html").read_text()
