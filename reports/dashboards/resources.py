"""The resource dashboard: processors, memory, GPUs, network and disks of each node, and what they were used for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from ..downsampling import downsample
from ..figures import Axis, Dashboard, FactsPanel, HeatMapPanel, Line, LinesPanel, Section
from ..numbers import shown
from ..rules import usage as rules
from .costs import LEAST_USUAL_SECONDS, efficiency_of
from .curves import NO_FINITE, seconds_of
from .heat_columns import divide, mean_by_column
from .metric_table import build_metric_table
from .naming import name_runs
from .notes import notes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..data import ReportData, Run, Series
    from ..figures import Finding, Panel

MAX_RUNS: Final = 3
MAX_LINES: Final = 10
_GPU: Final = re.compile(r"gpu_(\d+)_(.+)")


@dataclass(frozen=True, slots=True)
class _Chart:
    """A chart of one quantity of all nodes.

    Attributes:
        name: for the panel id.
        title: the title.
        sentence: what it shows.
        y: the axis.
        series: the names of the system metrics, with the legend of each; ``""`` for the node alone. Those of GPUs are
            without ``gpu_<n>_``.
        is_gpu: whether they are those of GPUs.
    """

    name: str
    title: str
    sentence: str
    y: Axis
    series: tuple[tuple[str, str], ...]
    is_gpu: bool = False


_PERCENT: Final = Axis("use", "%", low=0, high=100)
_CHARTS: Final = (
    _Chart(
        "cpu", "CPU of the nodes", "Use of all cores of each node.", _PERCENT, (("cpu_utilization_percentage", ""),)
    ),
    _Chart(
        "process-cpu",
        "CPU of the process",
        "Processor time of the training process on each node; 100% is one core.",
        Axis("use, 100% is one core", "%"),
        (("process_cpu_percentage", ""),),
    ),
    _Chart(
        "process-memory",
        "Memory of the process",
        "Resident memory of the training process on each node.",
        Axis("memory", "MB"),
        (("process_memory_megabytes", ""),),
    ),
    _Chart(
        "memory",
        "Memory of the nodes",
        "Memory in use on each node.",
        _PERCENT,
        (("system_memory_usage_percentage", ""),),
    ),
    _Chart("gpu", "GPUs", "Use of each GPU.", _PERCENT, (("utilization_percentage", ""),), is_gpu=True),
    _Chart(
        "gpu-memory",
        "Memory of the GPUs",
        "Memory in use on each GPU.",
        _PERCENT,
        (("memory_usage_percentage", ""),),
        is_gpu=True,
    ),
    _Chart(
        "gpu-power",
        "Power of the GPUs",
        "Power of each GPU.",
        Axis("power", "W"),
        (("power_usage_watts", ""),),
        is_gpu=True,
    ),
    _Chart(
        "network",
        "Network",
        "Data that each node received and sent, a second.",
        Axis("rate", "MB/s"),
        (("network_receive_megabytes_per_second", "received"), ("network_transmit_megabytes_per_second", "sent")),
    ),
    _Chart(
        "disk",
        "Disks",
        "Data that each node read from and wrote to its disks, a second.",
        Axis("rate", "MB/s"),
        (("disk_read_megabytes_per_second", "read"), ("disk_write_megabytes_per_second", "written")),
    ),
)
_ALWAYS: Final = ("cpu", "process-memory")


def plot_worker_utilization(data: ReportData) -> Dashboard:
    """Return the resource dashboard of up to ``MAX_RUNS`` runs."""
    runs = data.runs[:MAX_RUNS]
    labels = name_runs(runs)
    sections = tuple(
        Section(f"Resources of {labels[run.run_id]}", build_resource_panels(run, f"resources-{number}"))
        for number, run in enumerate(runs, 1)
    )
    sentence = "How much of its processors, memory, GPUs, network and disks each node used, and what for."
    return Dashboard("resources", f"Resources: {shown(data.title)}", sentence, sections, notes_of(data, MAX_RUNS))


def build_resource_panels(run: Run, panel_id: str) -> tuple[Panel, ...]:
    """Return the panels of one run. A quantity that was not sampled has no chart, but for processors and memory."""
    charts = [_build_chart(run, chart, panel_id) for chart in _CHARTS]
    drawn = [
        panel
        for chart, panel in zip(_CHARTS, charts, strict=True)
        if panel.lines or (chart.name in _ALWAYS and not run.system)
    ]
    return (_build_efficiency(run, panel_id), _build_heat_map(run, panel_id), *drawn, *_build_others(run, panel_id))


def _build_chart(run: Run, chart: _Chart, panel_id: str) -> LinesPanel:
    found = list(_find_series(run, chart))
    time = _time_axis(run)
    lines = []
    for number, (name, _, series) in enumerate(found[:MAX_LINES]):
        seconds = seconds_of(run, series)
        order = np.argsort(seconds, kind="stable")
        x, y = downsample(seconds[order] / time.divisor, series.values[order])
        lines.append(Line(shown(name), x, y, len(series), number, number))
    more = f" {MAX_LINES} of {len(found):,} are drawn." if len(found) > MAX_LINES else ""
    reason = "" if lines else "The run has no samples of it."
    if lines and not any(np.isfinite(line.y).any() for line in lines):
        reason = NO_FINITE
    return LinesPanel(
        panel_id=f"{panel_id}-{chart.name}",
        title=chart.title,
        sentence=f"{chart.sentence}{more}",
        findings=tuple(_find(run, chart, found)),
        empty_reason=reason,
        x=Axis("time since the start", time.unit),
        y=chart.y,
        lines=tuple(lines),
    )


def _find_series(run: Run, chart: _Chart) -> Iterator[tuple[str, str, Series]]:
    """Yield the legend, the node and the series of each line of a chart."""
    for node, group in run.system.items():
        for key, series in group.items():
            gpu = _GPU.fullmatch(key)
            name = gpu[2] if gpu else key
            for wanted, legend in chart.series:
                if name == wanted and bool(gpu) == chart.is_gpu and len(series):
                    parts = [node or "node", f"GPU {gpu[1]}" if gpu else "", legend]
                    yield " ".join(part for part in parts if part), node, series


def _find(run: Run, chart: _Chart, found: Sequence[tuple[str, str, Series]]) -> list[Finding]:
    has_gpu = any(_GPU.match(key) for group in run.system.values() for key in group)
    checks: dict[str, Callable[[str, str, NDArray[np.float64]], list[Finding]]] = {
        "process-memory": lambda _, node, values: rules.find_memory_growth(shown(node), values),
        "process-cpu": lambda _, node, values: (
            [] if has_gpu else rules.find_low_cpu(shown(node), values, _of_node(run, node))
        ),
        "memory": lambda _, node, values: rules.find_full_memory("The memory", shown(node), values),
        "gpu": lambda name, _, values: rules.find_low_gpu(name, "", values),
        "gpu-memory": lambda name, _, values: rules.find_full_memory(f"The memory of {name}", "", values),
    }
    check = checks.get(chart.name)
    if check is None:
        return []
    return [finding for name, node, series in found for finding in check(shown(name), node, series.values)]


def _of_node(run: Run, node: str) -> NDArray[np.float64]:
    series = run.system[node].get("cpu_utilization_percentage")
    return np.empty(0) if series is None else series.values


def _build_heat_map(run: Run, panel_id: str) -> HeatMapPanel:
    rows: list[tuple[str, Series]] = []
    for chart, what in ((_CHARTS[0], "CPU"), (_CHARTS[4], "")):
        rows += [(f"{name} {what}".strip(), series) for name, _, series in _find_series(run, chart)]
    time = _time_axis(run)
    times = [seconds_of(run, series) / time.divisor for _, series in rows]
    edges = divide(times)
    least = LEAST_USUAL_SECONDS / time.divisor
    values = [mean_by_column(found, one.values, edges, least) for found, (_, one) in zip(times, rows, strict=True)]
    return HeatMapPanel(
        panel_id=f"{panel_id}-heat-map",
        title="Use over time",
        sentence="Mean use of the processors and GPUs of each node over time; grey where samples are missing for longer than usual.",
        empty_reason="" if rows else "The run has no samples of processors or GPUs.",
        x=Axis("time since the start", time.unit),
        edges=edges,
        rows=tuple(shown(name) for name, _ in rows),
        values=np.array(values) if values else np.empty((0, len(edges) - 1)),
        scale=_PERCENT,
    )


def _build_efficiency(run: Run, panel_id: str) -> FactsPanel:
    facts = tuple(efficiency_of(run))
    return FactsPanel(
        panel_id=f"{panel_id}-efficiency",
        title="Cost and efficiency",
        sentence="What the run used, and how many training samples it got for that.",
        empty_reason="" if facts else "The run has neither an end nor samples of its resources.",
        facts=facts,
    )


def _build_others(run: Run, panel_id: str) -> tuple[Panel, ...]:
    """Return a table of all system metrics."""
    if not run.system:
        return ()
    metrics = {
        f"{node}/{name}" if node else name: series
        for node, group in run.system.items()
        for name, series in group.items()
    }
    return (build_metric_table([replace(run, metrics=metrics)], f"{panel_id}-table", title="All system metrics"),)


@dataclass(frozen=True, slots=True)
class _Time:
    unit: str
    divisor: float


def _time_axis(run: Run) -> _Time:
    """Return the unit of the time axis of all charts of a run."""
    ends = [
        float(seconds_of(run, series).max())
        for group in run.system.values()
        for series in group.values()
        if len(series)
    ]
    longest = max(ends, default=0.0)
    if longest > 3 * 3600:
        return _Time("h", 3600.0)
    return _Time("min", 60.0) if longest > 300 else _Time("s", 1.0)
