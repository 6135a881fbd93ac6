"""The guide's names: a collector is recorded, plotted, saved and shown."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import reports
from mlflow_ipfs.errors import SettingsError
from mlflow_ipfs.training import MetricsCollector
from reports.figures import LinesPanel
from support.report_samples import complete_report

if TYPE_CHECKING:
    from pathlib import Path

METHODS = [
    "plot_training_metrics",
    "plot_inference_metrics",
    "plot_worker_utilization",
    "plot_comparison",
    "plot_lineage",
    "plot_comprehensive_dashboard",
]


def test_the_guides_example_records_and_plots_a_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with MetricsCollector() as metrics:
        viz = reports.create_visualization(metrics)  # before anything was recorded
        for epoch in range(3):
            with metrics.track_training_epoch("model_1", epoch=epoch, num_samples=1000):
                metrics.record_metric(f"model_1/epoch/{epoch}/train_loss", 1.5 / (epoch + 1))
                metrics.record_metric(f"model_1/epoch/{epoch}/val_loss", 1.8 / (epoch + 1))
        for _ in range(8):
            with metrics.track_inference("model_1", batch_size=4):
                pass
        plot = viz.plot_training_metrics("model_1", show_plot=True)
        inference = viz.plot_inference_metrics("model_1")
    loss = next(panel for panel in plot.dashboard.panels if panel.title == "loss of model_1")
    assert isinstance(loss, LinesPanel)
    assert [line.y.tolist() for line in loss.lines] == [[1.5, 0.75, 0.5], [1.8, 0.9, 0.6]]
    assert loss.x.label == "epoch"
    assert not next(panel for panel in inference.dashboard.panels if panel.title == "Latency").is_empty
    assert "Training: metrics of this process" in capsys.readouterr().out
    assert plot.save(tmp_path / "training.svg").read_bytes().startswith(b"<?xml")
    assert plot.save(tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")


def test_the_guides_pandas_example_and_its_export(tmp_path: Path) -> None:
    metrics = MetricsCollector()
    for epoch, loss in enumerate([1.5, 1.0, 0.5]):
        metrics.record_metric(f"my_model/epoch/{epoch}/train_loss", loss)
        metrics.record_metric(f"my_model/epoch/{epoch}/val_loss", 2 * loss)
    viz = reports.create_visualization(metrics)
    frame = viz.get_metrics_dataframe(model_id="my_model")
    assert frame["train_loss"].rolling(window=2).mean().tolist()[1:] == [1.25, 0.75]
    assert frame["train_loss"].corr(frame["val_loss"]) == pytest.approx(1)
    files = viz.export_visualizations(export_dir=tmp_path / "out", formats=["json", "txt"])
    assert [file.name for file in files] == ["report.json", "report.txt"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_makes_the_dashboard_of_its_name(name: str) -> None:
    data = complete_report()
    plot = getattr(reports.create_visualization(data), name)()
    assert plot.dashboard.title == getattr(reports, name)(data).title
    assert plot.dashboard.sentence in str(plot)


def test_a_file_without_a_known_suffix_is_an_error(tmp_path: Path) -> None:
    plot = reports.create_visualization(complete_report()).plot_lineage()
    with pytest.raises(SettingsError, match=r"use \.html or \.svg or \.png"):
        plot.save(tmp_path / "lineage.pdf")


def test_a_notebook_displays_svg_or_a_page_in_a_frame(tmp_path: Path) -> None:
    static = reports.create_visualization(complete_report(), interactive=False).plot_lineage()
    assert "<svg" in str(static._repr_svg_())
    assert static._repr_html_() is None
    interactive = reports.create_visualization(complete_report()).plot_lineage()
    assert interactive._repr_svg_() is None
    shown = str(interactive._repr_html_())
    [page] = re.findall(r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts"', shown)
    assert html.unescape(page) == interactive.save(tmp_path / "lineage.html").read_text()


def test_without_matplotlib_plots_are_text_with_one_warning() -> None:
    code = """
import sys, warnings
sys.modules["matplotlib"] = None
import reports
from reports.figures import LinesPanel
from support.report_samples import complete_report
viz = reports.create_visualization(complete_report(), interactive=False)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("default")
    for _ in range(3):
        plot = viz.plot_comprehensive_dashboard()
        assert plot._repr_svg_() is None
assert len(caught) == 1, caught
assert "pip install" in str(caught[0].message)
assert "digits, version 1" in str(plot)
"""
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"], check=True)
