"""A mutable tree in memory, for tests of its files, snapshots and frozen paths."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.entries import MfsEntry

TOP = MfsPath("mlflow")
A = TOP.join("a")
OWNER = "model-version:r/m/1"


@pytest.fixture
def store() -> Iterator[ContentStore]:
    with ContentStore(MemoryStorage()) as opened:
        yield opened


def put(store: ContentStore, path: str, data: bytes = b"data") -> MfsEntry:
    return store.files.put_stream(TOP.join(path), io.BytesIO(data))


def import_cid(path: Path, options: ImportOptions | None = None) -> CID:
    with Importer(HashOnlyPublication(), options) as importer:
        return importer.import_path(path).link.cid
