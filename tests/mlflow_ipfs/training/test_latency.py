"""Latency: percentiles against numpy-free truth, warm-up, merging, and the artifact."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.errors import InvalidDataError
from mlflow_ipfs.training.latency import (
    GROWTH,
    LatencyHistogram,
    LatencyRecorder,
    guess_batch_size,
    measure_inference,
)

LATENCIES = st.lists(st.integers(1, 10**11), min_size=1, max_size=300)


def histogram_of(latencies: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for latency in latencies:
        histogram.add(latency, 8)
    return histogram


@given(latencies=LATENCIES, share=st.floats(0, 1))
def test_percentiles_are_exact_to_half_a_percent(latencies: list[int], share: float) -> None:
    found = histogram_of(latencies).percentile_ns(share)
    assert found is not None
    exact = sorted(latencies)[max(math.ceil(share * len(latencies)), 1) - 1]
    assert found == pytest.approx(exact, rel=GROWTH - 1, abs=1)


@given(first=LATENCIES, second=LATENCIES)
def test_merging_equals_measuring_together(first: list[int], second: list[int]) -> None:
    merged = histogram_of(first)
    merged.merge(histogram_of(second))
    assert merged == histogram_of(first + second)


def test_warm_up_is_dropped_and_counted() -> None:
    recorder = LatencyRecorder(warmup=2)
    for milliseconds in (500, 90, 10, 20, 30):
        recorder.add(milliseconds * 1_000_000, 4)
    metrics = recorder.metrics()
    assert metrics["inference/first_batch_ms"] == 500
    assert (metrics["inference/warmup_batches"], metrics["inference/measured_batches"]) == (2, 3)
    assert metrics["inference/latency_max_ms"] == 30
    assert metrics["inference/latency_p50_ms"] == pytest.approx(20, rel=0.01)
    assert metrics["inference/samples_per_second"] == pytest.approx(12 / 0.060)
    assert "inference/latency_p99_ms" not in metrics, "three batches have no 99th percentile"


def test_p99_needs_a_hundred_batches() -> None:
    recorder = LatencyRecorder(warmup=0)
    for _ in range(99):
        recorder.add(1_000_000, 1)
    assert "inference/latency_p99_ms" not in recorder.metrics()
    recorder.add(1_000_000, 1)
    assert recorder.metrics()["inference/latency_p99_ms"] == pytest.approx(1)


def test_without_measured_batches_there_are_no_percentiles() -> None:
    recorder = LatencyRecorder(warmup=5)
    recorder.add(1_000_000, 1)
    assert set(recorder.metrics()) == {
        "inference/measured_batches",
        "inference/warmup_batches",
        "inference/first_batch_ms",
    }


def test_the_artifact_comes_back_and_says_that_the_loop_is_closed() -> None:
    recorder = LatencyRecorder(warmup=1)
    for number in range(50):
        recorder.add(1_000_000 + number, 4 if number % 2 else 8, memory_bytes=1000 * number)
    data = recorder.to_json(device="cpu", stage="predict")
    assert b'"loop": "closed"' in data
    read = LatencyRecorder.from_json(data)
    assert read.metrics() == recorder.metrics()
    assert read.histograms == recorder.histograms
    for bad in (b"", b"[]", b'{"format": 2, "growth": 1.01}', data.replace(b'"count"', b'"kount"')):
        with pytest.raises(InvalidDataError):
            LatencyRecorder.from_json(bad)


WRONG: tuple[object, ...] = ("1", -1, 1.5, 1e308, True, 2**63, [])
BUCKETS: tuple[object, ...] = ({}, {"0": 3}, {"9": 3.0}, {"4999": 3}, {"-1": 3}, [3], {"x": 3})
SIZES: tuple[object, ...] = ([], {"0": {}}, {"-1": {}}, {"x": {}}, {"4": 1}, {"4": {}})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("warmup_batches", "first_batch_ns") for value in WRONG),
        *(
            (f"batch_sizes/4/{name}", value)
            for name in ("count", "total_ns", "max_ns", "samples", "peak_memory_bytes")
            for value in WRONG
        ),
        *((f"batch_sizes/4/{name}", 0) for name in ("count", "total_ns", "max_ns")),
        ("batch_sizes/4/max_ns", 1_000_000_000),
        ("batch_sizes/4/total_ns", 10**12),
        *(
            ("batch_sizes/4/counts", value)
            for value in ({}, {"0": 3}, {"9": 3.0}, {"4999": 3}, {"-1": 3}, [3], {"x": 3})
        ),
        *(("batch_sizes", value) for value in SIZES),
    ],
)
def test_an_artifact_with_impossible_numbers_is_refused(name: str, value: object) -> None:
    recorder = LatencyRecorder(warmup=0)
    for number in range(3):
        recorder.add(1_000_000 + number, 4, memory_bytes=1000)
    fields = json.loads(recorder.to_json())
    assert LatencyRecorder.from_json(json.dumps(fields).encode()).histograms == recorder.histograms
    *parents, last = name.split("/")
    place = fields
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(InvalidDataError):
        LatencyRecorder.from_json(json.dumps(fields).encode())


def test_a_deeply_nested_artifact_is_refused() -> None:
    with pytest.raises(InvalidDataError):
        LatencyRecorder.from_json(b"[" * 200_000)


@given(latencies=st.lists(st.integers(0, 2**60), min_size=1, max_size=4))
def test_every_artifact_comes_back(latencies: list[int]) -> None:
    recorder = LatencyRecorder(warmup=0)
    for latency in latencies:
        recorder.add(latency, 2)
    recorder.add(5, 0)  # a batch without samples
    assert LatencyRecorder.from_json(recorder.to_json()).histograms == {2: recorder.histograms[2]}


def test_measure_inference_waits_for_the_device_only_around_the_call() -> None:
    events: list[str] = []

    def batches() -> Any:
        for _ in range(3):
            events.append("next")
            time.sleep(0.02)
            yield [[1.0], [2.0]]

    def model(_: Any) -> None:
        events.append("call")
        time.sleep(0.005)

    recorder = measure_inference(model, batches(), warmup=1, synchronize=lambda: events.append("wait"))
    assert events == ["next", "wait", "call", "wait"] * 3
    metrics = recorder.metrics()
    assert metrics["inference/measured_batches"] == 2
    assert 5 <= metrics["inference/latency_max_ms"] < 20, "the time to get a batch is not part of its latency"
    assert list(recorder.histograms) == [2]
    assert metrics["inference/peak_memory_mb"] > 1


class Array:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ([1, 2, 3], 3),
        (Array(4, 2), 4),
        ((Array(5), Array(5)), 5),
        ({"x": Array(6, 1)}, 6),
        (Array(), 1),
        ("abc", 3),
        (7, 1),
    ],
)
def test_batch_sizes(batch: Any, size: int) -> None:
    assert guess_batch_size(batch) == size
