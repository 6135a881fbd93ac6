"""Outputs without charts: JSON, CSV and text, of real and of hostile data."""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.errors import SettingsError
from mlflow_ipfs.training.latency import LatencyRecorder
from reports import DatasetInput, Latency, Missing, ModelVersion, ReportData, Run, Series, collect, export
from reports.json_format import to_json
from reports.text_format import sparkline, to_text
from support.recorded_runs import EXPERIMENT, HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from support.recorded_runs import RecordedRuns

PROJECT_DOCS = "docs/report-format.md"
CID = "bafybeidddysmhrkjyj4xy4tfympvommbynjrflvuhhp6kcb2xbet4etxny"


def series(key: str, values: list[float]) -> Series:
    return Series.build(key, range(len(values)), range(len(values)), values)


def full_report() -> ReportData:
    recorder = LatencyRecorder(warmup=0)
    for number in range(150):
        recorder.add(1_000_000 + number, 8, 1_000_000)
    run = Run(
        *("r" * 32, "smooth-fox", "1", "digits", "FINISHED", 1_000, 61_000, "ann", "mfs://mlflow/1/r/artifacts"),
        params={"lr": "0.1", "formula": "=HYPERLINK(1)", "negative": "-1"},
        tags={"t": "v"},
        metrics={"loss": series("loss", [math.nan, math.inf, -math.inf, 0.5]), "empty": series("empty", [])},
        system={"": {"cpu": series("cpu", [1.0])}, "node": {"cpu": series("cpu", [2.0, 4.0])}},
        datasets=(DatasetInput("rows", "d", f"ipfs://{CID}", "training", CID, cid_is_certain=True, size_bytes=8),),
        latencies=(Latency("inference/test/latency.json", "test", "cpu", recorder),),
    )
    version = ModelVersion("digits", 1, run.run_id, CID, "runs:/r/model", "READY", 2_000, ("champion",), {"a": "b"})
    return ReportData("digits, version 1", "sqlite:///m.db", (run,), (version,), (Missing("x", "y", run.run_id),))


def hostile_report(name: str = HOSTILE) -> ReportData:
    run = Run(
        *(name, name, name, name, name),
        params={name: name * 100, "wide": "字" * 200},
        tags={name: name},
        metrics={f"{name}{number}": series("m", [1e308, -1e308, 0.0]) for number in range(3)},
        system={name: {name: series(name, [1.0])}},
        datasets=(DatasetInput(name, name, name, name),),
    )
    version = ModelVersion(name, 1, name, None, name, name, None, (name,), {name: name})
    return ReportData(name, name, (run,), (version, ModelVersion(name, 2)), (Missing(name, name, name),))


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def find_names(value: Any, free: frozenset[str]) -> set[str]:
    """Return the names of all fields, without those below the fields whose names are free."""
    if isinstance(value, list):
        return {name for one in value for name in find_names(one, free)}
    if not isinstance(value, dict):
        return set()
    below = [one for name, one in value.items() if name not in free]
    below += [two for name, one in value.items() if name in free and isinstance(one, dict) for two in one.values()]
    return set(value) | {name for one in below for name in find_names(one, free)}


def test_json_is_strict_and_complete() -> None:
    fields = json.loads(to_json(full_report()), parse_constant=pytest.fail)
    assert (fields["format"], fields["version"]) == ("mlflow-ipfs report", 1)
    (run,) = fields["runs"]
    assert run["metrics"]["loss"] == {
        "steps": [0, 1, 2, 3],
        "times_ms": [0, 1, 2, 3],
        "values": ["NaN", "Infinity", "-Infinity", 0.5],
    }
    assert run["system"]["node"]["cpu"]["values"] == [2.0, 4.0]
    assert run["latencies"][0]["batch_sizes"]["8"]["count"] == 150
    assert run["datasets"][0]["cid"] == fields["versions"][0]["cid"] == CID
    assert fields["missing"] == [{"what": "x", "reason": "y", "run_id": "r" * 32}]


def test_every_field_and_column_is_documented(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    text = (pytestconfig.rootpath / PROJECT_DOCS).read_text()
    free = frozenset({"params", "tags", "metrics", "system", "batch_sizes", "counts"})
    fields = json.loads(to_json(full_report()))
    names = find_names(fields, free) - {"node", "loss", "empty", "cpu", "8"}
    assert {"steps", "first_batch_ns", "cid_is_certain", "aliases"} <= names
    names -= set(fields["runs"][0]["params"]) | set(fields["runs"][0]["tags"]) | {"a", ""}
    for file in export(full_report(), tmp_path, "csv"):
        assert f"`{file.name}`" in text
        names |= {
            name
            for name in file.read_text().partition("\n")[0].split(",")
            if not name.startswith(("params.", "metrics."))
        }
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_csv_has_every_point_and_every_table(tmp_path: Path) -> None:
    files = export(full_report(), tmp_path, ["csv"])
    names = ["runs.csv", "metrics.csv", "latencies.csv", "datasets.csv", "versions.csv", "missing.csv"]
    assert [file.name for file in files] == names
    points = read_csv(tmp_path / "metrics.csv")
    assert [(one["metric"], one["value"]) for one in points] == [
        *(("loss", "nan"), ("loss", "inf"), ("loss", "-inf"), ("loss", "0.5")),
        *(("system/cpu", "1.0"), ("system/node/cpu", "2.0"), ("system/node/cpu", "4.0")),
    ]
    (run,) = read_csv(tmp_path / "runs.csv")
    assert (run["params.lr"], run["metrics.loss"], run["metrics.empty"]) == ("0.1", "0.5", "")
    (latency,) = read_csv(tmp_path / "latencies.csv")
    assert float(latency["p99_ms"]) == pytest.approx(1, rel=0.01)
    assert read_csv(tmp_path / "versions.csv")[0]["cid"] == CID


def test_a_spreadsheet_runs_no_formula_of_a_name(tmp_path: Path) -> None:
    export(full_report(), tmp_path, "csv")
    (run,) = read_csv(tmp_path / "runs.csv")
    assert run["params.formula"] == "'=HYPERLINK(1)"
    assert run["params.negative"] == "-1"
    export(hostile_report("=1+1"), tmp_path, "csv")
    texts = [file.read_text() for file in tmp_path.iterdir()]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in line)


@pytest.mark.parametrize("name", [HOSTILE, "x" * 500, "字" * 90, "a\nb\rc\td\x00\u202e\u2028", "\ud800", ""])
def test_text_fits_80_columns_and_cannot_control_a_terminal(name: str) -> None:
    text = to_text(hostile_report(name))
    assert max(columns(line) for line in text.split("\n")) <= 80
    assert [one for one in text if not one.isprintable() and one != "\n"] == []
    text.encode("utf-8")


def test_text_says_what_was_trained_on_what_and_where_the_model_is() -> None:
    text = to_text(full_report())
    for words in ("digits, version 1 (champion)", f"ipfs://{CID}", "rows for training", "FINISHED", "60.0 s", "lr"):
        assert words in text
    assert "PARTIAL REPORT: 1 thing could not be read" in text
    assert "150 " in text  # batches
    assert "empty" in text
    assert "no points" in text


def test_text_has_the_findings_of_each_run_and_no_infinity_is_hidden() -> None:
    text = to_text(full_report())
    assert "  problem: loss is NaN or infinite at 3 of 4 points, first at step 0." in text
    (row,) = (line for line in text.splitlines() if line.startswith("    loss "))
    assert row.split()[1:4] == ["0.5", "-inf", "inf"]
    assert "Best runs" not in text


def test_text_of_several_runs_names_the_best_ones_by_the_main_metric() -> None:
    runs = tuple(
        Run(f"{number}" * 32, f"fox-{number}", metrics={"val_loss": series("val_loss", [9.0, abs(number - 4) + 0.5])})
        for number in range(7)
    )
    text = to_text(ReportData("t", runs=runs))
    lines = text[text.index("Best runs by val_loss") :].splitlines()
    assert [line.split() for line in lines[1:4]] == [["fox-4", "0.5"], ["fox-3", "1.5"], ["fox-5", "1.5"]]
    assert lines[6] == "    … and 2 more; the HTML report compares the runs"


@pytest.mark.parametrize("started_ms", [2**62, -(2**62), 253_402_300_800_000])
def test_text_says_that_a_time_outside_the_calendar_is_unknown(started_ms: int) -> None:
    text = to_text(ReportData("t", runs=(Run("r", started_ms=started_ms),)))
    assert "started unknown" in text


def test_two_hundred_metric_names_are_grouped() -> None:
    metrics = {f"layer{number % 4}/weight{number:03}": series("m", [1.0]) for number in range(200)}
    text = to_text(ReportData("t", runs=(Run("r", metrics=metrics),)))
    assert len(text.splitlines()) < 60
    for group in range(4):
        assert f"layer{group}/weight" in text
        assert f"layer{group}: 40 more" in text
    assert "160 more" in text


def test_a_run_without_metrics_says_so() -> None:
    assert "metrics: none were logged" in to_text(ReportData("t", runs=(Run("r"),)))
    assert "0 runs" in to_text(ReportData("t"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([math.nan, math.inf], "··"),
        ([0.0, 1.0, math.nan], "▁█·"),
        ([-1.7e308, 1.7e308], "▁█"),
        ([5e-324, 0.0], "▁▁"),
        ([*([0.0] * 5000), 9.0, *([0.0] * 4999)], "▁▁▁▁▁█▁▁▁▁"),
    ],
)
def test_sparklines_keep_spikes_and_survive_every_value(values: list[float], expected: str) -> None:
    assert sparkline(values) == expected


def test_all_formats_of_recorded_runs_and_the_same_bytes_again(
    database: Path, recorded: RecordedRuns, tmp_path: Path
) -> None:
    def write(directory: Path) -> dict[str, bytes]:
        data = collect(experiment=EXPERIMENT, tracking_uri=f"sqlite:///{database}")
        return {file.name: file.read_bytes() for file in export(data, directory, "json,csv,txt")}

    first = write(tmp_path / "one")
    assert len(first) == 8
    assert recorded.full in first["report.txt"].decode()
    assert write(tmp_path / "two" / "deep") == first
    assert write(tmp_path / "one") == first


@pytest.mark.parametrize("formats", ["", ",", "pdf", "json,exe"])
def test_an_unknown_format_is_refused_before_anything_is_written(formats: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the formats are"):
        export(full_report(), tmp_path / "out", formats)
    assert not (tmp_path / "out").exists()


def test_no_report_is_written_to_a_directory_that_hides_the_package(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another name"):
        export(full_report(), tmp_path / "reports", "json")
