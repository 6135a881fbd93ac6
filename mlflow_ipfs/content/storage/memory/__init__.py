"""Storage in memory: for tests, and the model that other storages are compared with."""

from mlflow_ipfs.content.storage.memory.storage import MemoryStorage

__all__ = ["MemoryStorage"]
