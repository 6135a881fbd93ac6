"""Files that a server receives as streams: published, cut off, silent and slow."""

from __future__ import annotations

import asyncio
import io
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mlflow_ipfs.content.store import ContentStore

BIG = random.Random(1).randbytes(2 << 20)  # two chunks, kept as a file of its own
RUN = "mfs://mlflow/1/run/artifacts"


def get_artifact_repository(uri: str) -> Any:
    """Return MLflow's repository for a URI as ``Any``: MLflow's base class does not declare all methods."""
    return artifact_repository_registry.get_artifact_repository(uri)


def listing(repository: Any, path: str | None = None) -> list[tuple[str, bool, int | None]]:
    return [(item.path, item.is_dir, item.file_size) for item in repository.list_artifacts(path)]


def test_streams_are_published(store: ContentStore) -> None:
    del store
    repository = get_artifact_repository("mfs://mlflow")
    repository.log_artifact_from_stream(io.BytesIO(BIG), "some/dirs/big.bin", "1/run/artifacts")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BIG), 100_000):
            yield BIG[start : start + 100_000]
            yield b""
            await asyncio.sleep(0)

    asyncio.run(repository.log_artifact_from_async_stream(chunks(), "async.bin", "1/run/artifacts"))
    run = get_artifact_repository(RUN)
    assert listing(run) == [("async.bin", False, len(BIG)), ("big.bin", False, len(BIG))]
    assert Path(run.download_artifacts("async.bin")).read_bytes() == BIG


def test_a_stream_that_breaks_off_leaves_nothing(store: ContentStore) -> None:
    del store
    repository = get_artifact_repository("mfs://mlflow")

    async def chunks() -> AsyncIterator[bytes]:
        yield BIG
        msg = "the client went away"
        raise ConnectionResetError(msg)

    with pytest.raises(ConnectionResetError):
        asyncio.run(repository.log_artifact_from_async_stream(chunks(), "x.bin", "1"))
    assert repository.list_artifacts() == []


@pytest.mark.parametrize("pause_seconds", [60, 0.05])
def test_a_silent_client_is_given_up(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch, pause_seconds: float
) -> None:
    """A client that only sends a byte from time to time is also aborted: its upload would block gc for ever."""
    repository = get_artifact_repository("mfs://mlflow")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield b"x"
            await asyncio.sleep(pause_seconds)

    monkeypatch.setenv("MLFLOW_IPFS_TIMEOUT_SECONDS", "0.3")
    with pytest.raises(MlflowException, match="upload was aborted"):
        asyncio.run(repository.log_artifact_from_async_stream(chunks(), "x.bin", "1"))
    assert repository.list_artifacts() == []
    store.collect_garbage()


def test_a_slow_client_has_all_the_time_it_needs(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    del store
    repository = get_artifact_repository("mfs://mlflow")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(12):
            await asyncio.sleep(0.1)
            yield b"x" * (40 << 10)

    monkeypatch.setenv("MLFLOW_IPFS_TIMEOUT_SECONDS", "0.6")
    asyncio.run(repository.log_artifact_from_async_stream(chunks(), "x.bin", "1"))
    assert listing(repository, "1") == [("1/x.bin", False, 480 << 10)]
