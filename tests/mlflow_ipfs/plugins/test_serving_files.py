"""The artifact repository in MLflow's server: no slow work on the event loop, and no copy on a thread."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_ipfs import opening
from mlflow_ipfs.binding.artifacts import served_files
from mlflow_ipfs.binding.artifacts.artifact_trees import MAX_READY_BYTES
from mlflow_ipfs.binding.mlflow_process import SERVER_BACKEND_STORE
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs import dag_pb
from mlflow_ipfs.content.storage.local.gc.assembling import Assembler
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.storage.local.reading.objects import ObjectChecker
from support.storages import put_block

if TYPE_CHECKING:
    from mlflow_ipfs.content.store import ContentStore

SIZE_BYTES = 8 << 20
FIRST = random.Random(1).randbytes(SIZE_BYTES)
SECOND = random.Random(2).randbytes(1 << 20) + FIRST[1 << 20 :]
RUN = "mfs://mlflow/1/run/artifacts"


@pytest.fixture
def repository(store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run with ``first.bin``, which is stored as a whole file, and ``second.bin``, which is stored in separate chunks."""
    del store
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", SIZE_BYTES)
    logged = get_artifact_repository(RUN)
    for name, data in (("first.bin", FIRST), ("second.bin", SECOND), ("page.html", b"<p>" * 700_000)):
        (tmp_path / name).write_bytes(data)
        logged.log_artifact(str(tmp_path / name), "model")
    return logged


@pytest.fixture
def in_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVER_BACKEND_STORE, "sqlite://")


@pytest.fixture
def sent(tmp_path: Path) -> Path:
    """The server's temporary directory for one answer."""
    (tmp_path / "sent").mkdir()
    return tmp_path / "sent"


@pytest.mark.usefixtures("in_server")
def test_on_the_event_loop_nothing_is_hashed_or_assembled(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("hashed or assembled on the event loop")

    first = Path(repository.get_local_path("model/first.bin"))
    assert first.read_bytes() == FIRST
    monkeypatch.setattr(Assembler, "assemble", refuse)
    monkeypatch.setattr(ObjectChecker, "_find_damage", refuse)
    assert repository.get_local_path("model/second.bin") is None
    os.utime(first, ns=(0, 0))
    assert repository.get_local_path("model/first.bin") is None


@pytest.mark.usefixtures("in_server")
def test_a_path_through_large_directories_is_left_to_a_thread(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(FIRST)
    current, unrelated = store.add(tmp_path / "file.bin").cid, CID.of(b"")
    for name in (b"file.bin", b"next", b"next"):
        links = [dag_pb.Link(unrelated, f"{number:05}".encode(), 0) for number in range(3000)]
        block = dag_pb.encode_node([*links, dag_pb.Link(current, name, 1)], b"\x08\x01")
        current = CID.of(block, DAG_PB)
        put_block(store.storage, current, block)
    assert 3 * len(block) > MAX_READY_BYTES > len(block)
    repository = get_artifact_repository(f"ipfs://{current}")
    assert repository.get_local_path("next/next/file.bin") is None
    assert Path(repository.download_artifacts("next/next/file.bin")).read_bytes() == FIRST
    inner = store.resolve(current, "next/next")
    assert Path(str(get_artifact_repository(f"ipfs://{inner}").get_local_path("file.bin"))).read_bytes() == FIRST


@pytest.mark.usefixtures("in_server")
def test_the_server_sends_an_assembled_file_without_a_copy(repository: Any) -> None:
    directory = tempfile.TemporaryDirectory()  # as MLflow's server makes it and removes it

    async def answer() -> str:
        assert repository.get_local_path("model/second.bin") is None
        return str(await asyncio.to_thread(repository.download_artifacts, "model/second.bin", directory.name))

    path = Path(asyncio.run(answer()))
    assert path == Path(directory.name, "second.bin")
    assert path.is_symlink()
    assert path.read_bytes() == SECOND
    file = path.resolve()
    directory.cleanup()
    assert not os.path.lexists(path)
    assert file.stat().st_mode & 0o777 == 0o444
    assert repository.get_local_path("model/second.bin") == str(file), "from now on with a length, and by ranges"
    assert file.read_bytes() == SECOND


@pytest.mark.usefixtures("in_server")
def test_a_page_is_sent_under_its_own_name_without_a_copy(repository: Any, sent: Path) -> None:
    assert repository.get_local_path("model/page.html") is None
    path = Path(repository.download_artifacts("model/page.html", str(sent)))
    assert (path.name, path.is_symlink()) == ("page.html", True)
    assert path.read_bytes() == b"<p>" * 700_000


@pytest.mark.usefixtures("in_server")
def test_a_second_download_and_one_of_something_else_are_files_of_their_own(repository: Any, sent: Path) -> None:
    assert repository.get_local_path("model/page.html") is None
    assert not Path(repository.download_artifacts("model/second.bin", str(sent))).is_symlink()
    assert not Path(repository.download_artifacts("model/page.html", str(sent))).is_symlink()


def test_a_client_gets_files_of_its_own(repository: Any, sent: Path) -> None:
    assert repository.get_local_path("model/second.bin") is None
    path = Path(repository.download_artifacts("model/second.bin", str(sent)))
    assert not path.is_symlink()
    path.write_bytes(b"changed")
    assert Path(repository.download_artifacts("model/second.bin")).read_bytes() == SECOND


@pytest.mark.usefixtures("in_server")
def test_where_symlinks_cannot_be_made_the_file_is_copied(
    repository: Any, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no symlinks here")

    assert repository.get_local_path("model/second.bin") is None
    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = Path(repository.download_artifacts("model/second.bin", str(sent)))
    assert not path.is_symlink()
    assert path.read_bytes() == SECOND


@pytest.mark.usefixtures("in_server")
def test_damage_is_found_when_the_file_is_to_be_sent(repository: Any, sent: Path) -> None:
    first = Path(repository.get_local_path("model/first.bin"))
    first.chmod(0o644)
    with first.open("r+b") as file:
        file.write(b"\xff\x00\xff")
    assert repository.get_local_path("model/first.bin") is None
    with pytest.raises(MlflowException, match="damaged in its leaf"):
        repository.download_artifacts("model/first.bin", str(sent))
    assert list(sent.iterdir()) == []


@pytest.mark.usefixtures("in_server")
def test_with_verify_always_every_answer_is_hashed_on_a_thread(
    repository: Any, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_VERIFY", "always")
    opening.shared_store()  # another store, by another setting: on an event loop it would not be opened
    assert repository.get_local_path("model/first.bin") is None
    assert Path(repository.download_artifacts("model/first.bin", str(sent))).read_bytes() == FIRST


@pytest.mark.usefixtures("in_server")
def test_the_store_is_not_opened_on_an_event_loop(repository: Any, sent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def on_the_loop(path: str) -> Any:
        return repository.get_local_path(path)

    opening.close_shared_stores()
    with monkeypatch.context() as context:
        context.setattr(opening, "open_store", lambda *_: pytest.fail("the store was opened on the event loop"))
        assert asyncio.run(on_the_loop("model/first.bin")) is None
    assert repository.get_local_path("model/first.bin") is not None, "elsewhere it is opened"
    assert asyncio.run(on_the_loop("model/first.bin")) is not None
    opening.close_shared_stores()

    async def answer(path: str) -> object:
        assert repository.get_local_path(path) is None
        opened = asyncio.to_thread(repository.download_artifacts, path, str(sent))
        return await opened

    for path, code in (("model", "INVALID_PARAMETER_VALUE"), ("model/nothing", "RESOURCE_DOES_NOT_EXIST")):
        with pytest.raises(MlflowException) as caught:
            asyncio.run(answer(path))
        assert caught.value.error_code == code
        opening.close_shared_stores()


def test_to_ask_whether_to_wait_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> bool:
        return served_files.must_not_wait()

    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/never-made")
    assert asyncio.run(ask())
    assert not served_files.must_not_wait()
    assert not (tmp_path / "never-made").exists()
