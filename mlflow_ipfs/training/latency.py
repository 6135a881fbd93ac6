"""Inference latency: percentiles that are honest about what was measured.

The loop is *closed*: the next batch starts when the last one has ended. So a slow batch delays the others instead of
letting them queue up, and the tail looks better than it would under a load of its own (coordinated omission). Everything
here says so: the artifact has ``"loop": "closed"``.

Latencies are counted in a histogram whose buckets grow by ``GROWTH`` each, so a percentile is exact to 0.5%, and histograms of
batches, ranks and runs can be added up, which percentiles cannot.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from mlflow_ipfs.errors import InvalidDataError
from mlflow_ipfs.training.metric_names import INFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

FORMAT: Final = 1
GROWTH: Final = 1.01
DEFAULT_WARMUP: Final = 5
MIN_FOR_P99: Final = 100  # fewer samples have no 99th percentile that is not the maximum
_LOG_GROWTH: Final = math.log(GROWTH)
_LARGEST: Final = 2**63 - 1
_MAX_BUCKET: Final = math.floor(math.log(_LARGEST) / _LOG_GROWTH)


@dataclass
class LatencyHistogram:
    """Latencies of batches of one size.

    Attributes:
        counts: number of latencies in each bucket: bucket ``b`` has those from ``GROWTH**b`` to ``GROWTH**(b + 1)`` ns.
        count: number of latencies.
        total_ns: their sum in ns.
        max_ns: the longest one in ns.
        samples: number of samples in the measured batches.
    """

    counts: Counter[int] = field(default_factory=Counter)
    count: int = 0
    total_ns: int = 0
    max_ns: int = 0
    samples: int = 0

    def add(self, latency_ns: int, samples: int) -> None:
        """Count the latency of a batch with a number of samples."""
        self.counts[math.floor(math.log(max(latency_ns, 1)) / _LOG_GROWTH)] += 1
        self.count += 1
        self.total_ns += latency_ns
        self.max_ns = max(self.max_ns, latency_ns)
        self.samples += samples

    def merge(self, other: LatencyHistogram) -> None:
        """Add the latencies of another histogram."""
        self.counts.update(other.counts)
        self.count += other.count
        self.total_ns += other.total_ns
        self.max_ns = max(self.max_ns, other.max_ns)
        self.samples += other.samples

    def percentile_ns(self, share: float) -> float | None:
        """Return the latency in ns that ``share`` (0 to 1) of the batches do not exceed; None without batches."""
        rank = max(math.ceil(share * self.count), 1)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(math.pow(GROWTH, bucket + 0.5), float(self.max_ns))
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the histogram for JSON."""
        return {
            "counts": {str(bucket): number for bucket, number in sorted(self.counts.items())},
            "count": self.count,
            "total_ns": self.total_ns,
            "max_ns": self.max_ns,
            "samples": self.samples,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the histogram that ``to_dict`` described.

        Raises:
            InvalidDataError: a number is not one that ``to_dict`` writes, or the numbers contradict each other.
        """
        counts: Counter[int] = Counter()
        for text, number in fields["counts"].items():
            counts[_read_key(text, 0, _MAX_BUCKET)] = _read_whole(number, "the count of a bucket")
        numbers = (_read_whole(fields[name], name) for name in ("count", "total_ns", "max_ns", "samples"))
        histogram = cls(counts, *numbers)
        if not histogram._is_consistent():
            msg = "the counts of its histogram contradict each other"
            raise InvalidDataError(msg)
        return histogram

    def _is_consistent(self) -> bool:
        """Return whether the numbers can be those of the same latencies. Edges of buckets are rounded."""
        if sum(self.counts.values()) != self.count or not self.max_ns <= self.total_ns <= self.count * self.max_ns:
            return False
        highest = max((bucket for bucket, number in self.counts.items() if number), default=0)
        low, high = (math.pow(GROWTH, highest + place) for place in (-0.01, 1.01))
        return not self.count or low <= max(self.max_ns, 1) <= high


class LatencyRecorder:
    """Collects the latencies of one inference: drops the warm-up, keeps a histogram for each batch size.

    Args:
        warmup: number of batches at the start that are dropped and counted. The very first one is kept apart, as the cold
            start.
    """

    def __init__(self, warmup: int = DEFAULT_WARMUP) -> None:
        self._warmup = warmup
        self.warmup_batches = 0
        self.first_batch_ns: int | None = None
        self.peak_memory_bytes: dict[int, int] = {}
        self.histograms: dict[int, LatencyHistogram] = {}

    def add(self, latency_ns: int, batch_size: int, memory_bytes: int | None = None) -> None:
        """Record the latency of a batch. A batch without samples is left out.

        Args:
            latency_ns: from the start of the batch to its result on the device, in ns.
            batch_size: number of samples.
            memory_bytes: the highest use of memory so far; None if it is not known.
        """
        if batch_size < 1:
            return
        if self.first_batch_ns is None:
            self.first_batch_ns = latency_ns
        if self.warmup_batches < self._warmup:
            self.warmup_batches += 1
            return
        self.histograms.setdefault(batch_size, LatencyHistogram()).add(latency_ns, batch_size)
        if memory_bytes is not None:
            self.peak_memory_bytes[batch_size] = max(memory_bytes, self.peak_memory_bytes.get(batch_size, 0))

    def merge(self, other: LatencyRecorder) -> None:
        """Add what another rank or another loop recorded."""
        self.warmup_batches += other.warmup_batches
        if self.first_batch_ns is None:
            self.first_batch_ns = other.first_batch_ns
        for size, histogram in other.histograms.items():
            self.histograms.setdefault(size, LatencyHistogram()).merge(histogram)
        for size, memory in other.peak_memory_bytes.items():
            self.peak_memory_bytes[size] = max(memory, self.peak_memory_bytes.get(size, 0))

    def total(self) -> LatencyHistogram:
        """Return the histogram of all batch sizes together."""
        total = LatencyHistogram()
        for histogram in self.histograms.values():
            total.merge(histogram)
        return total

    def explain_nothing(self, stage: str) -> str | None:
        """Return a warning if all batches were warm-up, so that no latency was measured; else None."""
        if self.histograms or not self.warmup_batches:
            return None
        return (
            f"no latency of {stage} was measured: all {self.warmup_batches} batches were warm-up, which is dropped. Use more "
            "batches, or give the callback a smaller warmup"
        )

    def metrics(self, prefix: str = INFERENCE) -> dict[str, float]:
        """Return the metrics of ``metric_names``, below a prefix. Percentiles are left out if nothing was measured after the warm-up."""
        total = self.total()
        found = {"measured_batches": float(total.count), "warmup_batches": float(self.warmup_batches)}
        if self.first_batch_ns is not None:
            found["first_batch_ms"] = self.first_batch_ns / 1e6
        if total.count:
            shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95} | ({"p99": 0.99} if total.count >= MIN_FOR_P99 else {})
            for name, share in shares.items():
                found[f"latency_{name}_ms"] = (total.percentile_ns(share) or 0.0) / 1e6
            found["latency_max_ms"] = total.max_ns / 1e6
            found["samples_per_second"] = total.samples / (total.total_ns / 1e9) if total.total_ns else 0.0
        if self.peak_memory_bytes:
            found["peak_memory_mb"] = max(self.peak_memory_bytes.values()) / 1e6
        return {f"{prefix}/{name}": value for name, value in found.items()}

    def to_json(self, *, device: str = "", stage: str = "") -> bytes:
        """Return everything that was recorded, for the artifact that reports read (``LATENCY_ARTIFACT``)."""
        fields = {
            "format": FORMAT,
            "loop": "closed",
            "growth": GROWTH,
            "stage": stage,
            "device": device,
            "warmup_batches": self.warmup_batches,
            "first_batch_ns": self.first_batch_ns,
            "batch_sizes": {
                str(size): histogram.to_dict() | {"peak_memory_bytes": self.peak_memory_bytes.get(size)}
                for size, histogram in sorted(self.histograms.items())
            },
        }
        return json.dumps(fields, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            InvalidDataError: the data is not a record of latencies, or a newer version wrote it.
        """
        try:
            fields = json.loads(data)
            if fields["format"] != FORMAT or fields["growth"] != GROWTH:
                msg = f"the latencies have format {fields['format']}, and this version reads {FORMAT}: upgrade mlflow-ipfs"
                raise InvalidDataError(msg)
            recorder = cls()
            recorder.warmup_batches = _read_whole(fields["warmup_batches"], "warmup_batches")
            if fields["first_batch_ns"] is not None:
                recorder.first_batch_ns = _read_whole(fields["first_batch_ns"], "first_batch_ns")
            for text, found in fields["batch_sizes"].items():
                size, memory = _read_key(text, 1, _LARGEST), found["peak_memory_bytes"]
                recorder.histograms[size] = LatencyHistogram.from_dict(found)
                if memory is not None:
                    recorder.peak_memory_bytes[size] = _read_whole(memory, "peak_memory_bytes")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"the data is not a record of latencies: {error!r}"
            raise InvalidDataError(msg) from error
        return recorder


def _read_whole(value: object, what: str) -> int:
    """Return a whole number from 0 to the largest of 64 bits.

    Raises:
        InvalidDataError: the value is anything else.
    """
    if type(value) is not int or not 0 <= value <= _LARGEST:
        msg = f"the data is not a record of latencies: {what} is {value!r:.40}, not a whole number of 64 bits from 0 on"
        raise InvalidDataError(msg)
    return value


def _read_key(text: str, lowest: int, highest: int) -> int:
    """Return the number that a name in the JSON text stands for.

    Raises:
        InvalidDataError: it is not a number, or not from ``lowest`` to ``highest``.
    """
    if (
        not text.isascii()
        or not text.isdecimal()
        or len(text) > len(str(highest))
        or not lowest <= int(text) <= highest
    ):
        msg = f"the data is not a record of latencies: {text!r:.40} is not a number from {lowest} to {highest}"
        raise InvalidDataError(msg)
    return int(text)


def measure_inference(
    fn: Callable[[Any], object],
    batches: Iterable[Any],
    *,
    warmup: int = DEFAULT_WARMUP,
    batch_size: Callable[[Any], int] | None = None,
    synchronize: Callable[[], object] | None = None,
) -> LatencyRecorder:
    """Call a function with each batch, in a closed loop, and record how long each call takes.

    Args:
        fn: the model, or any function of one batch.
        batches: the batches. The time to get the next one is not part of its latency.
        warmup: number of batches at the start that are dropped and counted.
        batch_size: returns the number of samples of a batch; None for ``guess_batch_size``.
        synchronize: waits for the device, before and after each call; None for torch's device if torch is loaded and
            uses one.
    """
    recorder = LatencyRecorder(warmup)
    wait = synchronize or find_synchronize() or _no_op
    size_of = batch_size or guess_batch_size
    for batch in batches:
        wait()
        started = time.perf_counter_ns()
        fn(batch)
        wait()
        recorder.add(time.perf_counter_ns() - started, size_of(batch), device_memory_bytes())
    return recorder


def guess_batch_size(batch: Any) -> int:  # noqa: ANN401 - any batch
    """Return the number of samples of a batch: the length of its first array, of ``x``, ``(x, y)`` or ``{"x": x}``.

    A batch without arrays is a list of samples, or a tuple of such lists. 1 if it has no length.
    """
    array = _first_array(batch)
    if array is not None:
        shape = array.shape
        return int(shape[0]) if len(shape) else 1
    first = batch[0] if isinstance(batch, tuple) and batch else batch
    try:
        return len(first)
    except TypeError:
        return 1


def _first_array(batch: Any) -> Any:  # noqa: ANN401 - any batch
    while isinstance(batch, list | tuple | dict) and batch:
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    return batch if hasattr(batch, "shape") else None


def find_synchronize() -> Callable[[], object] | None:
    """Return a function that waits for torch's device; None if torch is not loaded or uses the CPU."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        synchronize: Callable[[], object] = torch.cuda.synchronize
        return synchronize
    return None


def device_memory_bytes() -> int | None:
    """Return the highest memory that torch has used on its GPU, or of the process on a CPU; None if it is not known."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _no_op() -> None:
    return None
