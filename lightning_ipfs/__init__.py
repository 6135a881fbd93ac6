"""Lightning callbacks and a logger that measure training and inference, and never hold them up.

```python
from lightning_ipfs import IPFSCallback

trainer = Trainer(max_epochs=5, callbacks=[IPFSCallback()])
```

Works with ``lightning`` and with ``pytorch_lightning``; import the one that you use before this package. Metrics go through
the run log of ``mlflow_ipfs.training`` into the run of an MLflow logger, the active MLflow run, or a new run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning_ipfs.callbacks import InferenceMetrics, IPFSCallback, Resources
    from lightning_ipfs.dataset_inputs import DatasetInputs
    from lightning_ipfs.epoch_metrics import EpochMetrics
    from lightning_ipfs.logger import IPFSLogger
    from lightning_ipfs.run_report import RunReport

__all__ = ["DatasetInputs", "EpochMetrics", "IPFSCallback", "IPFSLogger", "InferenceMetrics", "Resources", "RunReport"]

_MODULES: Final = {
    "DatasetInputs": "dataset_inputs",
    "EpochMetrics": "epoch_metrics",
    "IPFSCallback": "callbacks",
    "IPFSLogger": "logger",
    "InferenceMetrics": "callbacks",
    "Resources": "callbacks",
    "RunReport": "run_report",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
