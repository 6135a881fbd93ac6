"""The inference dashboard: latency with honest percentiles, throughput and memory by batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.training import metric_names as names
from mlflow_ipfs.training.latency import DEFAULT_WARMUP, MIN_FOR_P99

from ..figures import Axis, BarGroup, BarsPanel, Cell, Column, Dashboard, Fact, FactsPanel, Section, TablePanel
from ..numbers import format_batches, format_number, shown
from .distribution import build_ecdf, build_histogram, doubt_of
from .metric_table import number_cell
from .naming import name_runs
from .notes import notes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.training.latency import LatencyHistogram, LatencyRecorder

    from ..data import Latency, ReportData, Run
    from ..figures import Panel

MAX_INFERENCES: Final = 8
CLOSED_LOOP: Final = (
    "closed loop: the next batch starts when the last one has ended, so the tail may look better than under load"
)


@dataclass(frozen=True, slots=True, eq=False)
class _Inference:
    title: str
    recorder: LatencyRecorder
    device: str


def plot_inference_metrics(data: ReportData, model_id: str | None = None) -> Dashboard:
    """Return the inference dashboard, with a section for each inference of each run, up to ``MAX_INFERENCES``.

    Args:
        data: the runs.
        model_id: only the inference of ``<model_id>/inference/latency.json``; None for all.
    """
    sections = build_inference_sections(data.runs, model_id)
    count = sum(len(run.latencies) for run in data.runs)
    notes = notes_of(data, max(len(data.runs), 1))
    if count > MAX_INFERENCES:
        notes = (*notes, f"This page shows {MAX_INFERENCES} of {count:,} inferences.")
    sentence = f"How long inference takes, and what it needs. Measured in a {CLOSED_LOOP}."
    return Dashboard("inference", f"Inference: {shown(data.title)}", sentence, sections, notes)


def build_inference_sections(runs: Sequence[Run], model_id: str | None = None) -> tuple[Section, ...]:
    """Return a section for each inference; one that says why if there is none."""
    labels = name_runs(runs)
    found = [
        _Inference(
            _name_inference(latency, labels[run.run_id] if len(runs) > 1 else ""), latency.recorder, latency.device
        )
        for run in runs
        for latency in run.latencies
        if model_id is None or latency.path.startswith(f"{model_id}/")
    ]
    if not found:
        return (Section("Inference", _explain_absence(runs)),)
    return tuple(
        Section(one.title, _build_panels(one, f"inference-{number}"))
        for number, one in enumerate(found[:MAX_INFERENCES], 1)
    )


def _name_inference(latency: Latency, run: str) -> str:
    model = latency.path.removesuffix(names.LATENCY_ARTIFACT).rstrip("/") if not latency.stage else ""
    what = latency.stage or model
    return shown(f"Inference{f' ({what})' if what else ''}{f' of {run}' if run else ''}", 100)


def _build_panels(inference: _Inference, panel_id: str) -> tuple[Panel, ...]:
    total = inference.recorder.total()
    if not total.count:
        return (_build_facts(inference, total, panel_id),)
    return (
        _build_facts(inference, total, panel_id),
        build_histogram(panel_id, inference.title, total),
        build_ecdf(panel_id, inference.title, inference.recorder.histograms),
        _build_throughput(inference.recorder, panel_id),
        _build_memory(inference.recorder, panel_id),
        _build_table(inference.recorder, panel_id),
    )


def explain_warm_up(recorder: LatencyRecorder) -> str:
    """Return why an inference has no latencies, and how many batches it needs."""
    count = recorder.warmup_batches
    batches = "The only batch was warm-up" if count == 1 else f"All {count:,} batches were warm-up"
    return (
        f"{batches if count else 'No batch was recorded'}, so no latency was measured: by default, the first {DEFAULT_WARMUP} "
        f"batches of each loop are left out, and a p99 needs {MIN_FOR_P99} batches after them."
    )


def _build_facts(inference: _Inference, total: LatencyHistogram, panel_id: str) -> FactsPanel:
    recorder = inference.recorder
    facts = [
        Fact(
            "Measured",
            f"{format_batches(total.count)} with {total.samples:,} samples, after {recorder.warmup_batches:,} of warm-up",
        ),
        Fact("Device", shown(inference.device) or "not recorded"),
        Fact("Loop", CLOSED_LOOP),
    ]
    if recorder.first_batch_ns is not None:
        facts.append(Fact("First batch (cold start)", format_number(recorder.first_batch_ns / 1e6, "ms")))
    if total.count:
        facts += [
            Fact(
                f"{label} latency of a batch",
                f"{format_number(_milliseconds(total, share), 'ms')}{_doubt(total, share)}",
            )
            for label, share in (("Median", 0.5), ("p95", 0.95), ("p99", 0.99))
        ]
        facts.append(Fact("Longest latency", format_number(total.max_ns / 1e6, "ms")))
        facts.append(Fact("Throughput", format_number(_throughput(total), "samples/s")))
    return FactsPanel(
        panel_id=f"{panel_id}-facts",
        title="In numbers",
        sentence="What was measured, and under which conditions." if total.count else explain_warm_up(recorder),
        facts=tuple(facts),
    )


def _build_throughput(recorder: LatencyRecorder, panel_id: str) -> BarsPanel:
    sizes = sorted(recorder.histograms)
    values = np.array([_throughput(recorder.histograms[size]) for size in sizes])
    return BarsPanel(
        panel_id=f"{panel_id}-throughput",
        title="Throughput by batch size",
        sentence="Samples a second for each batch size: samples by the sum of the latencies of their batches.",
        x=Axis("batch size"),
        y=Axis("throughput", "samples/s"),
        categories=tuple(f"{size:,}" for size in sizes),
        groups=(BarGroup("throughput", values),) if sizes else (),
    )


def _build_memory(recorder: LatencyRecorder, panel_id: str) -> BarsPanel:
    sizes = sorted(recorder.peak_memory_bytes)
    values = np.array([recorder.peak_memory_bytes[size] / 1e6 for size in sizes])
    return BarsPanel(
        panel_id=f"{panel_id}-memory",
        title="Memory by batch size",
        sentence="Highest memory of the device, or of the process on a CPU, until the last batch of each size had ended.",
        empty_reason=("" if sizes else "The memory was not recorded."),
        x=Axis("batch size"),
        y=Axis("memory", "MB"),
        categories=tuple(f"{size:,}" for size in sizes),
        groups=(BarGroup("memory", values, 1),) if sizes else (),
    )


def _build_table(recorder: LatencyRecorder, panel_id: str) -> TablePanel:
    shares = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
    rows = []
    for size, histogram in sorted(recorder.histograms.items()):
        memory = recorder.peak_memory_bytes.get(size)
        percentiles = [_percentile_cell(histogram, share) for _, share in shares]
        rows.append(
            (
                Cell(f"{size:,}", float(size)),
                Cell(f"{histogram.count:,}", float(histogram.count)),
                *percentiles,
                number_cell(histogram.max_ns / 1e6),
                number_cell(_throughput(histogram)),
                Cell("not recorded") if memory is None else number_cell(memory / 1e6),
            )
        )
    return TablePanel(
        panel_id=f"{panel_id}-table",
        title="By batch size",
        sentence="Latency of a batch, throughput and memory for each batch size. A * marks percentiles of too few batches.",
        columns=(
            Column("batch size", is_number=True),
            Column("batches", is_number=True),
            *(Column(name, "ms", is_number=True) for name, _ in shares),
            Column("longest", "ms", is_number=True),
            Column("throughput", "samples/s", is_number=True),
            Column("memory", "MB", is_number=True),
        ),
        rows=tuple(rows),
    )


def _percentile_cell(histogram: LatencyHistogram, share: float) -> Cell:
    value = _milliseconds(histogram, share)
    return Cell(f"{format_number(value)}{'*' if _doubt(histogram, share) else ''}", value)


def _milliseconds(histogram: LatencyHistogram, share: float) -> float:
    return (histogram.percentile_ns(share) or 0.0) / 1e6


def _doubt(histogram: LatencyHistogram, share: float) -> str:
    doubt = doubt_of(histogram.count, share)
    return f" ({doubt})" if doubt else ""


def _throughput(histogram: LatencyHistogram) -> float:
    return histogram.samples / (histogram.total_ns / 1e9) if histogram.total_ns else 0.0


def _explain_absence(runs: Sequence[Run]) -> tuple[Panel, ...]:
    """Return the recorded percentiles if only the histogram is missing, or the reason why nothing is shown."""
    keys = [(run, key) for run in runs for key in run.metrics if f"/{names.INFERENCE}/" in f"/{key}"]
    labels = name_runs(runs)
    reason = "The runs have no record of inference latency (inference/<stage>/latency.json)."
    table = TablePanel(
        panel_id="inference-metrics",
        title="Recorded inference metrics",
        sentence="Percentiles as they were logged. A histogram of them needs latency.json.",
        empty_reason="" if keys else reason,
        columns=(Column("run"), Column("metric"), Column("value", is_number=True)),
        rows=tuple(
            (Cell(labels[run.run_id]), Cell(shown(key)), number_cell(run.metrics[key].last)) for run, key in keys
        ),
    )
    return (table,)
