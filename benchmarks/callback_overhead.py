"""Benchmark: what logging costs the training thread, for each batch and for each epoch of a tiny model.

Three questions, by processor time, threads included, so that the load of the machine matters little. The second and the
third one are measured in interleaved pairs:

1. our hooks on a loop that does nothing: microseconds of the training thread for each batch, if the metrics of every 50th
   batch are logged, and those of every batch; and the same while the MLflow server refuses connections, and while it takes
   them and never answers;
2. a tiny Lightning model with ``IPFSCallback``, compared with bare Lightning: the epochs after the first one, and the whole
   training, which creates the run in MLflow and waits for the last metrics. An epoch takes about a second, so that the run has
   been created in the first one;
3. the overhead of ``IPFSLogger`` that logs every batch, compared with that of Lightning's MLFlowLogger, with its asynchronous
   mode, and with dvclive, if it is installed.

Usage: python benchmarks/callback_overhead.py [BATCHES]
"""

from __future__ import annotations

import json
import logging
import os
import socket
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import PAIRS, compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH_SIZE = 32
EPOCHS = 4
EPOCH_BATCHES = 1000  # of the second question


def build_training(batches: int) -> Callable[..., tuple[float, float]]:
    """Return a function that trains once.

    It returns the processor time in microseconds for each batch: of the epochs after the first one, and of everything.
    """
    import torch  # noqa: PLC0415 - torch and Lightning take seconds
    from pytorch_lightning import Callback, LightningModule, Trainer  # noqa: PLC0415
    from torch.utils.data import DataLoader, TensorDataset  # noqa: PLC0415

    torch.set_num_threads(1)

    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))

        def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ANN401 - Lightning's batch
            del batch_idx
            loss = torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:  # noqa: ANN401 - torch's optimizer
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Clock(Callback):
        """Reads the clock when the first epoch has ended, and when the last one has."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_epoch_start(self, *_: Any) -> None:  # noqa: ANN401
            self.ends.append(time.process_time())

        def on_train_end(self, *_: Any) -> None:  # noqa: ANN401
            self.ends.append(time.process_time())

    rows = batches * BATCH_SIZE
    data = TensorDataset(torch.randn(rows, 32), torch.randint(0, 10, (rows,)))

    def train(callbacks: list[Any], logger: Any = False, every: int = 50) -> tuple[float, float]:  # noqa: ANN401, FBT002 - Lightning's types
        clock = Clock()
        trainer = Trainer(
            max_epochs=EPOCHS, callbacks=[*callbacks, clock], logger=logger, log_every_n_steps=every, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        started = time.process_time()
        trainer.fit(Model(), DataLoader(data, batch_size=BATCH_SIZE))
        whole = time.process_time() - started
        later = clock.ends[-1] - clock.ends[1]
        return later / ((EPOCHS - 1) * batches) * 1e6, whole / (EPOCHS * batches) * 1e6

    return train


def measure_hook(batches: int, every: int) -> float:
    """Return the microseconds of this thread that our hooks of a batch take, in a loop that does nothing else.

    Args:
        batches: number of batches.
        every: Lightning's ``log_every_n_steps``: the module's metric is logged once in so many batches.
    """
    import torch  # noqa: PLC0415 - torch and Lightning take seconds
    from pytorch_lightning import LightningModule, Trainer  # noqa: PLC0415

    from lightning_ipfs import EpochMetrics  # noqa: PLC0415

    module = LightningModule()
    trainer = Trainer(logger=False, log_every_n_steps=every, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(module)
    loop = trainer.fit_loop.epoch_loop
    loop._results.batch_size = BATCH_SIZE  # noqa: SLF001 - as Lightning does before each batch
    loop._results.log("training_step", "loss", torch.ones(()), on_step=True, on_epoch=True)  # noqa: SLF001
    callback, batch = EpochMetrics(), [torch.zeros(BATCH_SIZE, 1)]
    callback.setup(trainer, module, "fit")
    callback.on_train_start(trainer, module)
    started = time.thread_time()
    for number in range(batches):
        loop._batches_that_stepped = number  # noqa: SLF001
        callback.on_train_batch_start(trainer, module, batch, number)
        callback.on_train_batch_end(trainer, module, None, batch, number)
    elapsed = time.thread_time() - started
    callback.teardown(trainer, module, "fit")
    return elapsed / batches * 1e6


@contextmanager
def broken_server(*, listens: bool) -> Iterator[None]:
    """Make MLflow's tracking URI name a server that refuses connections, or one that accepts them and never answers."""
    before = os.environ["MLFLOW_TRACKING_URI"]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen(128)  # the kernel accepts connections, and no program reads them
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{server.getsockname()[1]}"
        yield
    os.environ["MLFLOW_TRACKING_URI"] = before


def report_hooks() -> None:
    """Print what our hooks take, with a server that works and with two that do not."""

    def report(name: str, every: int) -> None:
        ours = statistics.median(measure_hook(5_000, every) for _ in range(PAIRS))
        print(json.dumps({"benchmark": name, "measure": "microseconds", "ours": round(ours, 3)}), flush=True)

    for every in (50, 1):  # Lightning's default, and the most that a user can ask for
        report(f"batch_hook_{every}", every)
        for name, listens in (("refused", False), ("unanswered", True)):
            with broken_server(listens=listens):
                report(f"batch_hook_{every}_{name}", every)


def report_trainings(batches: int, uri: str, directory: str) -> None:
    """Print what trainings take, compared with bare ones and with the loggers of others."""
    from pytorch_lightning.loggers import MLFlowLogger  # noqa: PLC0415

    from lightning_ipfs import IPFSCallback, IPFSLogger  # noqa: PLC0415

    train, train_long = build_training(batches), build_training(max(batches, EPOCH_BATCHES))
    names = count()

    def overhead(make_logger: Callable[[], Any]) -> Callable[[], float]:
        return lambda: train([], make_logger(), every=1)[1] - train([])[1]

    measure = "processor microseconds per batch"

    def part_of(part: int, make_callbacks: Callable[[], list[Any]]) -> Callable[[], float]:
        return lambda: train_long(make_callbacks())[part]

    for part, name in enumerate(("epochs_with_callback", "training_with_callback")):
        compare(name, measure, part_of(part, lambda: [IPFSCallback()]), part_of(part, list), "bare Lightning")
    ours = overhead(lambda: IPFSLogger(run_name=str(next(names))))
    peers = {
        "MLFlowLogger": lambda: MLFlowLogger(tracking_uri=uri),
        "MLFlowLogger(synchronous=False)": lambda: MLFlowLogger(tracking_uri=uri, synchronous=False),
    }
    if find_spec("dvclive") is not None:
        from dvclive.lightning import DVCLiveLogger  # type: ignore[import-not-found]  # noqa: PLC0415

        peers["dvclive"] = lambda: DVCLiveLogger(dir=f"{directory}/dvclive", save_dvc_exp=False, report=None)
    for name, make_logger in peers.items():
        compare("overhead_of_logger_every_batch", measure, ours, overhead(make_logger), name)
    if "dvclive" not in peers:
        print(
            json.dumps(
                {"benchmark": "overhead_of_logger_every_batch", "peer_name": "dvclive", "not_run": "not installed"}
            )
        )


def main(batches: int) -> None:
    import pytorch_lightning  # noqa: F401, PLC0415 - it sets the level of its log itself

    for name in ("pytorch_lightning", "mlflow_ipfs"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name, chdir(name):  # dvclive writes here
        uri = f"sqlite:///{Path(name) / 'mlflow.db'}"
        os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_IPFS_RUNLOG": f"{name}/runlog"}
        report_hooks()
        report_trainings(batches, uri, name)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
