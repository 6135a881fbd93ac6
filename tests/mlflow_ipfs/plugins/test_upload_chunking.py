"""Uploads through the artifact repository get the CID of the file added by path, whatever the chunker."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.store.artifact import artifact_repository_registry

from mlflow_ipfs import config
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import close_shared_stores, shared_store
from support.chunkers import CHUNKERS, DATA, MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mlflow_ipfs.content.store import ContentStore


@pytest.fixture(params=CHUNKERS)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContentStore]:
    """A store whose chunker MLFLOW_IPFS_CHUNKER names; two of the names exist in this test only."""
    if not request.param.startswith("size-"):
        monkeypatch.setitem(config._READERS, "chunker", CHUNKERS.__getitem__)
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_IPFS_CHUNKER", request.param)
    yield shared_store()
    close_shared_stores()


@pytest.mark.parametrize("size", [999, 1001, MIB, 3 * MIB + 17])
def test_each_way_of_uploading_gives_the_cid_of_the_file(size: int, store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(DATA[:size])
    repository: Any = artifact_repository_registry.get_artifact_repository("mfs://mlflow/run")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, size, 99_991):
            yield DATA[start : min(start + 99_991, size)]
            await asyncio.sleep(0)

    repository.log_artifact(str(path), "file")
    repository.log_artifact_from_stream(io.BytesIO(DATA[:size]), "file.bin", "stream")
    asyncio.run(repository.log_artifact_from_async_stream(chunks(), "file.bin", "server"))
    expected = store.add(path).cid
    for directory in ("file", "stream", "server"):
        assert store.files.snapshot(MfsPath("mlflow", f"run/{directory}/file.bin"), only_hash=True).cid == expected, (
            directory
        )
