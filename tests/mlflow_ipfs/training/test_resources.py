"""The sampler of resources: rates, failing sources, and what a sample costs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import namedtuple
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from mlflow_ipfs.training.metric_names import METRIC_NAMES
from mlflow_ipfs.training.resources import ResourceSampler, safe_node_name
from support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

Samples = list[tuple["Mapping[str, float]", int]]


@pytest.fixture
def samples() -> Samples:
    return []


def sampler_into(samples: Samples, **options: Any) -> ResourceSampler:
    return ResourceSampler(lambda values, step: samples.append((dict(values), step)), node="node 1", **options)


def test_a_sample_has_the_names_of_the_table(samples: Samples) -> None:
    sampler = sampler_into(samples)
    sampler.sample()
    time.sleep(0.05)
    sampler.sample()
    known = {name.key.replace("{node}", "node_1") for name in METRIC_NAMES if "gpu" not in name.key}
    values, step = samples[1]
    assert step == 1
    found = {key for key in values if "gpu" not in key}
    assert found <= known
    assert {key for key in known if "cpu" in key or ("memory" in key and key.startswith("system/"))} <= found
    assert values["system/node_1/process_memory_megabytes"] > 10


def test_rates_are_bytes_since_the_last_sample(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"recv": 0}
    monkeypatch.setattr(
        psutil, "net_io_counters", lambda: SimpleNamespace(bytes_recv=counts["recv"], bytes_sent=7_000_000)
    )
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sampler = sampler_into(samples)
    now[0], counts["recv"] = 102.0, 8_000_000
    sampler.sample()
    assert samples[0][0]["system/node_1/network_receive_megabytes_per_second"] == pytest.approx(4.0)
    assert samples[0][0]["system/node_1/network_transmit_megabytes_per_second"] == 0
    now[0], counts["recv"] = 104.0, 0  # the interface was reset
    sampler.sample()
    assert "system/node_1/network_receive_megabytes_per_second" not in samples[1][0]


def test_processors_are_measured_from_the_first_sample_of_another_thread_on(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([(10, 100, 0, 5), (16, 103, 1, 9), (16, 103, 1, 9)])
    read = namedtuple("read", ["user", "idle", "iowait", "guest"])  # noqa: PYI024 - as psutil's
    monkeypatch.setattr(psutil, "cpu_times", lambda: read(*next(times)))
    sampler = sampler_into(samples)
    thread = threading.Thread(target=sampler.sample)
    thread.start()
    thread.join()
    sampler.sample()  # no time has passed
    found = [values["system/node_1/cpu_utilization_percentage"] for values, _ in samples]
    assert found == [pytest.approx(60), 0]


def test_a_failing_source_is_said_once_and_the_others_go_on(
    samples: Samples, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sampler = sampler_into(samples)

    def fail() -> None:
        raise OSError("gone")

    monkeypatch.setattr(psutil, "virtual_memory", fail)
    with caplog.at_level(logging.WARNING, logger="mlflow_ipfs"):
        sampler.sample()
        sampler.sample()
    assert caplog.text.count("the memory of this node cannot be read") == 1
    assert "system/node_1/cpu_utilization_percentage" in samples[1][0]
    assert "system/node_1/system_memory_usage_percentage" not in samples[1][0]


def test_it_samples_at_its_interval_until_it_is_closed(samples: Samples) -> None:
    with sampler_into(samples, interval_seconds=0.5):
        time.sleep(1.3)
    count = len(samples)
    assert count >= 2
    time.sleep(0.7)
    assert len(samples) == count
    assert [step for _, step in samples] == list(range(count))


def test_a_short_training_has_samples_although_the_interval_is_long(samples: Samples) -> None:
    with sampler_into(samples, interval_seconds=3600):
        wait_until(lambda: len(samples) > 1, timeout_seconds=60, what="two samples")
    assert len(samples) == 3, "and a last one"


class FakeNvml:
    """nvidia-ml-py with two GPUs, of which the second one does not measure its power."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:  # noqa: N802
        return number

    def nvmlDeviceGetMemoryInfo(self, _: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=2_000_000_000, total=8_000_000_000)

    def nvmlDeviceGetUtilizationRates(self, _: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle == 1:
            raise self.NVMLError
        return 123_400


def test_gpus(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml())
    sampler_into(samples).sample()
    values = {key.removeprefix("system/node_1/"): value for key, value in samples[0][0].items() if "gpu" in key}
    assert values == {
        "gpu_0_utilization_percentage": 37,
        "gpu_0_memory_usage_megabytes": 2000,
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_power_usage_watts": 123.4,
        "gpu_1_utilization_percentage": 37,
        "gpu_1_memory_usage_megabytes": 2000,
        "gpu_1_memory_usage_percentage": 25,
    }


def test_names_of_nodes_are_one_part_of_a_key() -> None:
    assert safe_node_name("a/b c") == "a_b_c"
    assert safe_node_name("") == "node"
