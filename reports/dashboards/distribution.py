"""Histogram and ECDF of latencies, from histograms whose buckets grow by 1%."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlflow_ipfs.training.latency import GROWTH, MIN_FOR_P99

from ..figures import Axis, HistogramPanel, Line, LinesPanel, Marker
from ..numbers import format_batches
from ..rules.usage import find_long_tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mlflow_ipfs.training.latency import LatencyHistogram

MAX_BINS: Final = 50
LOG_RATIO: Final = (
    3.0  # of the longest to the shortest latency; with more, equal bins are equal on a logarithmic scale only
)
MAX_SIZES: Final = 5
PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
_LATENCY: Final = "latency of a batch"


def build_histogram(panel_id: str, title: str, total: LatencyHistogram) -> HistogramPanel:
    """Return the histogram of all batch sizes together, with percentiles."""
    edges, counts = _bin(total)
    return HistogramPanel(
        panel_id=f"{panel_id}-histogram",
        title="Latency",
        sentence=f"Number of batches by their latency, of {format_batches(total.count, 'measured')} of all sizes (closed loop).",
        findings=tuple(find_long_tail(title, total)),
        x=_axis(edges),
        y=Axis("batches"),
        edges=edges,
        counts=counts,
        markers=_mark(total),
    )


def build_ecdf(panel_id: str, title: str, histograms: Mapping[int, LatencyHistogram]) -> LinesPanel:
    """Return the ECDF of the most frequent batch sizes."""
    sizes = sorted(sorted(histograms, key=lambda size: -histograms[size].count)[:MAX_SIZES])
    lines = [_build_ecdf_line(size, histograms[size], number) for number, size in enumerate(sizes)]
    left_out = (
        f" The {MAX_SIZES} most frequent of {len(histograms):,} sizes are drawn." if len(histograms) > MAX_SIZES else ""
    )
    values = np.concatenate([line.x for line in lines]) if lines else np.empty(0)
    return LinesPanel(
        panel_id=f"{panel_id}-ecdf",
        title="Share of batches by latency",
        sentence=f"Share of the batches that took at most this long, for each batch size ({title}, closed loop).{left_out}",
        x=_axis(values),
        y=Axis("share of the batches", "%", low=0, high=100),
        lines=tuple(lines),
    )


def _build_ecdf_line(size: int, histogram: LatencyHistogram, number: int) -> Line:
    buckets = np.array(sorted(histogram.counts))
    counts = np.array([histogram.counts[bucket] for bucket in buckets.tolist()])
    upper = np.minimum(_edge(buckets + 1), histogram.max_ns / 1e6)
    x = np.concatenate([_edge(buckets[:1]), upper])
    y = np.concatenate([[0.0], 100 * np.cumsum(counts) / histogram.count])
    name = f"size {size:,} ({histogram.count:,} {'batch' if histogram.count == 1 else 'batches'})"
    return Line(name, x, y, len(x), number, number, is_step=True)


def _bin(histogram: LatencyHistogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return edges in ms and counts of up to ``MAX_BINS`` bins, each of the same number of buckets."""
    if not histogram.count:
        return np.empty(0), np.empty(0)
    buckets = np.array(list(histogram.counts))
    low, high = int(buckets.min()), int(buckets.max())
    width = -(-(high - low + 1) // MAX_BINS)
    count = -(-(high - low + 1) // width)
    counts = np.bincount((buckets - low) // width, weights=list(histogram.counts.values()), minlength=count)
    return _edge(low + width * np.arange(count + 1)), counts.astype(np.float64)


def _edge(buckets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the lower edges of buckets in ms."""
    return np.power(GROWTH, buckets.astype(np.float64)) / 1e6


def _axis(values: NDArray[np.float64]) -> Axis:
    return Axis(_LATENCY, "ms", is_log=bool(len(values)) and values.max() > LOG_RATIO * values.min())


def _mark(total: LatencyHistogram) -> tuple[Marker, ...]:
    if not total.count:
        return ()
    return tuple(
        Marker(label, (total.percentile_ns(share) or 0.0) / 1e6, doubt_of(total.count, share))
        for label, share in PERCENTILES
    )


def doubt_of(count: int, share: float) -> str:
    """Return why a percentile is uncertain: less than one batch is above it. A p99 needs ``MIN_FOR_P99`` batches."""
    return f"of {format_batches(count)} only" if count * (1 - share) < 0.01 * MIN_FOR_P99 - 1e-9 else ""
