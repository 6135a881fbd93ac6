"""Sampler of the resources of one node: one thread, rates instead of totals, under 1% of a core.

A source that fails is left out of that sample and said once; the others go on.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from mlflow_ipfs.training.metric_names import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_logger = logging.getLogger(__name__)

DEFAULT_INTERVAL_SECONDS: Final = 10.0
MIN_INTERVAL_SECONDS: Final = 0.5  # a sample costs about 0.3 ms of CPU
_FIRST_INTERVAL_SECONDS: Final = 1.0
_MEGABYTE: Final = 1e6


class ResourceSampler:
    """Logs the resources of this node at an interval until it is closed.

    The first interval is one second, and each one twice as long as that before up to ``interval_seconds``: a short training has
    a few samples, too.

    Args:
        log: gets the values of each sample and its number.
        interval_seconds: the longest time between two samples, at least ``MIN_INTERVAL_SECONDS``.
        node: the name of the node in the keys; None for the host name.
        first_number: number of the first sample, its step.

    Attributes:
        number: number of the next sample.

    Raises:
        ImportError: psutil is not installed.
    """

    def __init__(
        self,
        log: Callable[[Mapping[str, float], int], None],
        *,
        interval_seconds: float = DEFAULT_INTERVAL_SECONDS,
        node: str | None = None,
        first_number: int = 0,
    ) -> None:
        self._log = log
        self._interval_seconds = max(interval_seconds, MIN_INTERVAL_SECONDS)
        self._prefix = f"{SYSTEM}/{safe_node_name(node or socket.gethostname())}/"
        self._sources: dict[str, Callable[[], Mapping[str, float]]] = dict(_sources())
        self._failed: set[str] = set()
        self.number = first_number
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-ipfs-resources", daemon=True)

    def start(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Take a last sample and stop. A second call is a no-op."""
        if self._end.is_set():
            return
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(5)
        self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        values: dict[str, float] = {}
        for name, read in self._sources.items():
            try:
                values.update(read())
            except Exception as error:  # noqa: BLE001 - a failing driver must not end the others
                if name not in self._failed:
                    self._failed.add(name)
                    _logger.warning("%s of this node cannot be read now (%s: %s)", name, type(error).__name__, error)
        if values:
            self._log({f"{self._prefix}{name}": value for name, value in values.items()}, self.number)
        self.number += 1

    def _run(self) -> None:
        seconds = min(_FIRST_INTERVAL_SECONDS, self._interval_seconds)
        while not self._end.wait(seconds):
            self.sample()
            seconds = min(2 * seconds, self._interval_seconds)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ResourceSeries:
    """Samplers that continue one series of sample numbers: those of fit, test and predict of one run.

    The arguments are those of ``ResourceSampler``.
    """

    def __init__(self, interval_seconds: float, node: str | None) -> None:
        self._interval_seconds = interval_seconds
        self._node = node
        self._sampler: ResourceSampler | None = None
        self._number = 0

    def start(self, log: Callable[[Mapping[str, float], int], None]) -> None:
        """Start sampling. A no-op while a sampler runs."""
        if self._sampler is None:
            self._sampler = ResourceSampler(
                log, interval_seconds=self._interval_seconds, node=self._node, first_number=self._number
            ).start()

    def stop(self) -> None:
        """Take a last sample and stop. A no-op if no sampler runs."""
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.close()
            self._number = sampler.number


def safe_node_name(name: str) -> str:
    """Return a node's name without the characters that separate keys or that MLflow refuses."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII) or "node"


class _BusyShare:
    """The share of time in which the processors were not idle, between two reads.

    ``psutil.cpu_percent`` does the same for each thread by itself, so that the first value of a new thread is always 0.
    """

    def __init__(self, read_times: Callable[[], Any]) -> None:
        self._read_times = read_times
        self._former = self._read()

    def read(self) -> float:
        """Return the percentage since the last read; 0 if no time has passed."""
        former, self._former = self._former, self._read()
        idle, total = (now - before for now, before in zip(self._former, former, strict=True))
        return 100 * min(max(1 - idle / total, 0), 1) if total > 0 else 0.0

    def _read(self) -> tuple[float, float]:
        times = self._read_times()
        guests = getattr(times, "guest", 0) + getattr(times, "guest_nice", 0)  # Linux counts them in user and nice, too
        return times.idle + getattr(times, "iowait", 0), sum(times) - guests


def _sources() -> list[tuple[str, Callable[[], Mapping[str, float]]]]:
    import psutil  # noqa: PLC0415 - an optional dependency

    process = psutil.Process(os.getpid())
    process.cpu_percent()  # the first call has nothing to compare with
    processors = _BusyShare(psutil.cpu_times)
    disk = _Rates(
        "disk",
        lambda: _pair(psutil.disk_io_counters(), "read_bytes", "write_bytes"),
        ("disk_read_megabytes_per_second", "disk_write_megabytes_per_second"),
    )
    network = _Rates(
        "network",
        lambda: _pair(psutil.net_io_counters(), "bytes_recv", "bytes_sent"),
        ("network_receive_megabytes_per_second", "network_transmit_megabytes_per_second"),
    )

    def read_cpu() -> Mapping[str, float]:
        return {"cpu_utilization_percentage": processors.read(), "process_cpu_percentage": process.cpu_percent()}

    def read_memory() -> Mapping[str, float]:
        memory = psutil.virtual_memory()
        return {
            "system_memory_usage_megabytes": (memory.total - memory.available) / _MEGABYTE,
            "system_memory_usage_percentage": memory.percent,
            "process_memory_megabytes": process.memory_info().rss / _MEGABYTE,
        }

    return [
        ("the CPU", read_cpu),
        ("the memory", read_memory),
        ("the disks", disk.read),
        ("the network", network.read),
        *_gpu_sources(),
    ]


def _pair(counters: Any, first: str, second: str) -> tuple[int, int] | None:  # noqa: ANN401 - psutil's tuples
    return None if counters is None else (int(getattr(counters, first)), int(getattr(counters, second)))


@dataclass
class _Rates:
    """Rates of two counters since the last sample."""

    name: str
    counters: Callable[[], tuple[int, int] | None]
    keys: tuple[str, str]
    before: tuple[float, tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        self.read()

    def read(self) -> Mapping[str, float]:
        """Return the rates in MB/s; nothing at the first call, and after a counter was reset."""
        now, counts = time.monotonic(), self.counters()
        if counts is None:  # a machine without such devices
            return {}
        before, self.before = self.before, (now, counts)
        if before is None or now <= before[0] or any(new < old for new, old in zip(counts, before[1], strict=True)):
            return {}
        seconds = now - before[0]
        return {
            key: (new - old) / _MEGABYTE / seconds for key, new, old in zip(self.keys, counts, before[1], strict=True)
        }


def _gpu_sources() -> list[tuple[str, Callable[[], Mapping[str, float]]]]:
    """Return a source for each NVIDIA GPU; none if nvidia-ml-py, the driver or a GPU is missing."""
    try:
        import pynvml  # noqa: PLC0415 - nvidia-ml-py, an optional dependency

        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    except Exception:  # noqa: BLE001 - no GPU, no driver or no library: there is nothing to sample
        return []
    return [(f"GPU {number}", _gpu_reader(pynvml, number, handle)) for number, handle in enumerate(handles)]


def _gpu_reader(pynvml: Any, number: int, handle: Any) -> Callable[[], Mapping[str, float]]:  # noqa: ANN401 - untyped
    def read() -> Mapping[str, float]:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        found = {
            "utilization_percentage": float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_usage_megabytes": memory.used / _MEGABYTE,
            "memory_usage_percentage": 100 * memory.used / memory.total,
        }
        with suppress(pynvml.NVMLError):  # some GPUs do not measure their power
            found["power_usage_watts"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
        return {f"gpu_{number}_{name}": value for name, value in found.items()}

    return read
