"""Keras 3 callbacks that measure training and inference, and never hold them up.

```python
from keras_ipfs import IPFSCallback

model.fit(x, y, epochs=5, callbacks=[IPFSCallback()])
```

Works with every backend, and imports none. Metrics go through the run log of ``mlflow_ipfs.training`` into the active MLflow run,
or into a new run that all calls for the model share.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from keras_ipfs.callbacks import DatasetInputs, EpochMetrics, InferenceMetrics, IPFSCallback, Resources
    from keras_ipfs.run_report import RunReport

__all__ = ["DatasetInputs", "EpochMetrics", "IPFSCallback", "InferenceMetrics", "Resources", "RunReport"]

_NAMES: Final = frozenset(__all__)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the public names
    if name not in _NAMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.callbacks"), name)
