"""Names, units and steps of every metric that this project logs. Callbacks and reports read this table.

Losses, accuracies and other values that a model logs itself keep the names that the model gives them. ``{stage}`` is
``predict`` or ``test``; the metrics collector has ``<model>/inference/…`` instead. In Lightning, the step of the metrics of an
epoch is the number of batches that stepped, as in its MLFlowLogger, and ``epoch`` is logged at the same step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Step = Literal["epoch", "batch", "sample number", "once"]


@dataclass(frozen=True, slots=True)
class MetricName:
    """A metric.

    Attributes:
        key: the key in MLflow. ``{…}`` stands for a part that varies.
        unit: the unit, as reports show it; ``""`` for a count or a share.
        step: what the step counts. *Batches* are optimizer steps. *Sample number* counts the samples of the sampler.
        meaning: one sentence.
    """

    key: str
    unit: str
    step: Step
    meaning: str


EPOCH_SECONDS: Final = "epoch_seconds"
SAMPLES_PER_SECOND: Final = "samples_per_second"
BATCHES_PER_SECOND: Final = "batches_per_second"
DATA_WAIT_SHARE: Final = "data_wait_share"
EPOCH: Final = "epoch"
LEARNING_RATE: Final = "learning_rate"
VALIDATION_SECONDS: Final = "validation_seconds"
DATASET_LOAD_SECONDS: Final = "dataset_load_seconds"
DATASET_BYTES_PER_SECOND: Final = "dataset_bytes_per_second"
SYSTEM: Final = "system"
INFERENCE: Final = "inference"

_TRAINING: Final = (
    MetricName(EPOCH, "", "batch", "Number of the epoch that a batch belongs to."),
    MetricName(EPOCH_SECONDS, "s", "epoch", "Wall time of the training part of an epoch, without validation."),
    MetricName(VALIDATION_SECONDS, "s", "epoch", "Wall time of the validation of an epoch."),
    MetricName(SAMPLES_PER_SECOND, "1/s", "epoch", "Training samples of an epoch by its epoch_seconds, of all ranks."),
    MetricName(BATCHES_PER_SECOND, "1/s", "epoch", "Training batches of an epoch by its epoch_seconds, of one rank."),
    MetricName(DATA_WAIT_SHARE, "", "epoch", "Share of epoch_seconds in which the loop waited for the next batch."),
    MetricName(LEARNING_RATE, "", "epoch", "Learning rate of the last batch of an epoch."),
    MetricName(f"{LEARNING_RATE}/{{optimizer}}", "", "epoch", "The same, of one of several optimizers or groups."),
    MetricName(DATASET_LOAD_SECONDS, "s", "once", "Wall time of loading a dataset."),
    MetricName(DATASET_BYTES_PER_SECOND, "B/s", "once", "Bytes of a dataset by its dataset_load_seconds."),
)
_LATENCY: Final = (
    MetricName(
        f"{INFERENCE}/{{stage}}/latency_p50_ms", "ms", "once", "Median latency of a batch, after warm-up, closed loop."
    ),
    MetricName(f"{INFERENCE}/{{stage}}/latency_p90_ms", "ms", "once", "90th percentile of the latency of a batch."),
    MetricName(f"{INFERENCE}/{{stage}}/latency_p95_ms", "ms", "once", "95th percentile of the latency of a batch."),
    MetricName(
        f"{INFERENCE}/{{stage}}/latency_p99_ms", "ms", "once", "99th percentile; absent below 100 measured batches."
    ),
    MetricName(f"{INFERENCE}/{{stage}}/latency_max_ms", "ms", "once", "Longest latency of a measured batch."),
    MetricName(
        f"{INFERENCE}/{{stage}}/first_batch_ms", "ms", "once", "Latency of the very first batch, the cold start."
    ),
    MetricName(f"{INFERENCE}/{{stage}}/measured_batches", "", "once", "Number of batches behind the percentiles."),
    MetricName(f"{INFERENCE}/{{stage}}/warmup_batches", "", "once", "Number of batches dropped as warm-up."),
    MetricName(
        f"{INFERENCE}/{{stage}}/samples_per_second", "1/s", "once", "Samples by the sum of the measured latencies."
    ),
    MetricName(f"{INFERENCE}/{{stage}}/peak_memory_mb", "MB", "once", "Highest memory of the device, or RSS on a CPU."),
)
# MLflow's own names, so that its UI groups and draws them in the same charts.
_RESOURCES: Final = (
    MetricName(
        f"{SYSTEM}/{{node}}/cpu_utilization_percentage", "%", "sample number", "CPU use of the node, of all cores."
    ),
    MetricName(
        f"{SYSTEM}/{{node}}/process_cpu_percentage", "%", "sample number", "CPU use of the process; 100 is one core."
    ),
    MetricName(f"{SYSTEM}/{{node}}/process_memory_megabytes", "MB", "sample number", "Resident memory of the process."),
    MetricName(f"{SYSTEM}/{{node}}/system_memory_usage_megabytes", "MB", "sample number", "Memory in use on the node."),
    MetricName(f"{SYSTEM}/{{node}}/system_memory_usage_percentage", "%", "sample number", "The same as a share."),
    MetricName(f"{SYSTEM}/{{node}}/disk_read_megabytes_per_second", "MB/s", "sample number", "Bytes read from disks."),
    MetricName(
        f"{SYSTEM}/{{node}}/disk_write_megabytes_per_second", "MB/s", "sample number", "Bytes written to disks."
    ),
    MetricName(f"{SYSTEM}/{{node}}/network_receive_megabytes_per_second", "MB/s", "sample number", "Bytes received."),
    MetricName(f"{SYSTEM}/{{node}}/network_transmit_megabytes_per_second", "MB/s", "sample number", "Bytes sent."),
    MetricName(f"{SYSTEM}/{{node}}/gpu_{{n}}_utilization_percentage", "%", "sample number", "Use of a GPU."),
    MetricName(f"{SYSTEM}/{{node}}/gpu_{{n}}_memory_usage_megabytes", "MB", "sample number", "Memory in use on a GPU."),
    MetricName(f"{SYSTEM}/{{node}}/gpu_{{n}}_memory_usage_percentage", "%", "sample number", "The same as a share."),
    MetricName(f"{SYSTEM}/{{node}}/gpu_{{n}}_power_usage_watts", "W", "sample number", "Power of a GPU."),
)
METRIC_NAMES: Final = (*_TRAINING, *_LATENCY, *_RESOURCES)
LATENCY_ARTIFACT: Final = "inference/latency.json"
