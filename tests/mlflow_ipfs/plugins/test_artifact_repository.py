from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import artifact_repository_registry

from mlflow_ipfs.content.mfs import MfsPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_ipfs.content.store import ContentStore
    from support.unprivileged import OrdinaryUser

BIG = random.Random(1).randbytes(2 << 20)  # two chunks, kept as a file of its own
RUN = "mfs://mlflow/1/run/artifacts"


def get_artifact_repository(uri: str) -> Any:
    """Return MLflow's repository for a URI as ``Any``: MLflow's base class does not declare all methods."""
    return artifact_repository_registry.get_artifact_repository(uri)


def make_directory(directory: Path) -> Path:
    (directory / "sub/deep").mkdir(parents=True)
    (directory / "a.txt").write_text("alpha")
    (directory / "big.bin").write_bytes(BIG)
    (directory / "sub/.hidden").write_text("hidden")
    (directory / "sub/deep/ünïcode name.txt").write_text("deep")
    (directory / "empty").write_bytes(b"")
    return directory


def read_tree(directory: str | Path) -> dict[str, bytes]:
    directory = Path(directory)
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def listing(repository: Any, path: str | None = None) -> list[tuple[str, bool, int | None]]:
    return [(item.path, item.is_dir, item.file_size) for item in repository.list_artifacts(path)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return make_directory(tmp_path / "source")


@pytest.fixture
def logged(store: ContentStore, directory: Path) -> Any:
    del store
    repository = get_artifact_repository(RUN)
    repository.log_artifacts(str(directory), "model")
    return repository


@pytest.fixture
def frozen(store: ContentStore, directory: Path) -> Any:
    return get_artifact_repository(f"ipfs://{store.add(directory).cid}")


def test_a_directory_comes_back_byte_for_byte(logged: Any, directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    path = logged.download_artifacts("model", str(target))
    assert path == str(target / "model")
    assert read_tree(path) == read_tree(directory)


def test_listings_have_sizes_and_know_files_from_directories(logged: Any, frozen: Any) -> None:
    assert listing(logged) == [("model", True, None)]
    expected = [("a.txt", False, 5), ("big.bin", False, len(BIG)), ("empty", False, 0), ("sub", True, None)]
    assert listing(frozen) == expected
    assert listing(logged, "model") == [(f"model/{path}", is_dir, size) for path, is_dir, size in expected]
    assert listing(logged, "model/sub") == [("model/sub/.hidden", False, 6), ("model/sub/deep", True, None)]
    for repository, file in ((logged, "model/a.txt"), (frozen, "a.txt")):
        assert repository.list_artifacts(file) == []


def test_empty_directories_are_kept_as_by_mlflows_local_artifacts(
    store: ContentStore, directory: Path, tmp_path: Path
) -> None:
    """The same calls, on this package and on MLflow's repository for local directories."""
    (directory / "hollow" / "inner").mkdir(parents=True)
    frozen = f"ipfs://{store.add(directory, hidden=True).cid}"
    stock, ours = get_artifact_repository(f"{tmp_path}/stock"), get_artifact_repository(RUN)
    for repository in (stock, ours):
        repository.log_artifacts(str(directory), "model")
        repository.log_artifacts(str(directory / "hollow"), "only/empty")
    assert listing(ours, "model") == listing(stock, "model")
    for path in ("model/hollow", "model/hollow/inner", "only", "only/empty", "only/empty/inner"):
        assert listing(ours, path) == listing(stock, path)
    for number, repository in enumerate((stock, ours, get_artifact_repository(frozen))):
        target = tmp_path / f"target-{number}"
        target.mkdir()
        repository.download_artifacts("" if number == 2 else "model", str(target))
        top = target if number == 2 else target / "model"
        assert (top / "hollow" / "inner").is_dir()
        assert directories_below(top) == directories_below(directory)
    empty = Path(ours.download_artifacts("model/hollow/inner"))
    assert empty.is_dir()
    assert list(empty.iterdir()) == []


def directories_below(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_dir())


def test_a_run_without_artifacts_is_an_empty_directory(store: ContentStore) -> None:
    del store
    repository = get_artifact_repository(RUN)
    assert repository.list_artifacts() == []
    assert os.listdir(repository.download_artifacts("")) == []


@pytest.mark.parametrize("uri", ["mfs://mlflow/1", "ipfs"])
@pytest.mark.parametrize("operation", ["download_artifacts", "get_local_path"])
def test_what_is_missing_is_not_found(store: ContentStore, directory: Path, uri: str, operation: str) -> None:
    repository = get_artifact_repository(f"ipfs://{store.add(directory).cid}" if uri == "ipfs" else uri)
    with pytest.raises(MlflowException) as caught:
        getattr(repository, operation)("no/such/file")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_cid_that_nobody_has_is_not_found(store: ContentStore) -> None:
    cid = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    repository = get_artifact_repository(f"ipfs://{cid}")
    for call in (repository.list_artifacts, lambda: repository.download_artifacts("")):
        with pytest.raises(MlflowException, match=cid) as caught:
            call()
        assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    del store


@pytest.mark.parametrize("uri", ["ipfs://gateway.example.com", "ipfs://127.0.0.1:8080/x", "ipfs://not-a-cid/a"])
def test_an_ipfs_uri_never_names_a_host(store: ContentStore, uri: str) -> None:
    del store
    repository = get_artifact_repository(uri)  # constructing never fails, so that `mlflow gc` gets past it
    with pytest.raises(MlflowException, match="CID") as caught:
        repository.list_artifacts()
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("path", ["../other", "a/../../other", "/etc/passwd/..", "a//b", "."])
def test_paths_that_leave_the_root_are_refused(logged: Any, frozen: Any, directory: Path, path: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: logged.log_artifact(str(directory / "a.txt"), path),
        lambda: logged.log_artifacts(str(directory), path),
        lambda: logged.log_artifact_from_stream(io.BytesIO(b"x"), "x", path),
        lambda: logged.get_local_path(path),
        lambda: frozen.get_local_path(path),
        lambda: logged.list_artifacts(path),
        lambda: frozen.list_artifacts(path),
        lambda: logged.delete_artifacts(path),
        lambda: logged.download_artifacts(path),
    ]
    for call in calls:
        with pytest.raises(MlflowException) as caught:
            call()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert listing(logged) == [("model", True, None)]


@pytest.mark.parametrize("path", ["/model/a.txt", "/model", "model/"])
def test_slashes_around_a_path_do_not_lead_out_of_the_destination(logged: Any, tmp_path: Path, path: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    assert logged.download_artifacts(path, str(target)) == str(target / path.strip("/"))
    assert (target / "model/a.txt").read_text() == "alpha"


def test_content_by_cid_cannot_be_written(frozen: Any, directory: Path) -> None:
    before = listing(frozen)
    calls: list[Callable[[], object]] = [
        lambda: frozen.log_artifact(str(directory / "a.txt")),
        lambda: frozen.log_artifacts(str(directory), "x"),
        lambda: frozen.delete_artifacts("a.txt"),
        frozen.delete_artifacts,
    ]
    for call in calls:
        with pytest.raises(MlflowException, match="ipfs://") as caught:
            call()
        assert caught.value.error_code == "PERMISSION_DENIED"
    assert listing(frozen) == before


def test_deleting_content_that_is_not_here_is_no_error(store: ContentStore) -> None:
    del store
    get_artifact_repository("ipfs://bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354").delete_artifacts()


def test_frozen_paths_are_read_and_never_written(store: ContentStore, logged: Any, directory: Path) -> None:
    cid = store.files.freeze(MfsPath("mlflow", "1/run/artifacts/model"), "test").cid
    (directory / "a.txt").write_text("changed")
    logged.log_artifacts(str(directory), "model")
    below = f"model/@{cid}"
    assert Path(logged.download_artifacts(f"{below}/a.txt")).read_text() == "alpha"
    assert (f"{below}/a.txt", False, 5) in listing(logged, below)
    assert Path(logged.get_local_path(f"{below}/big.bin")).read_bytes() == BIG
    frozen = get_artifact_repository(f"{RUN}/{below}")
    assert read_tree(frozen.download_artifacts(""))["a.txt"] == b"alpha"
    calls: list[Callable[[], object]] = [
        lambda: logged.log_artifact(str(directory / "a.txt"), below),
        lambda: logged.log_artifacts(str(directory), below),
        lambda: logged.delete_artifacts(below),
        lambda: logged.log_artifact_from_stream(io.BytesIO(b"x"), "x", below),
        lambda: frozen.log_artifact(str(directory / "a.txt")),
    ]
    for call in calls:
        with pytest.raises(MlflowException, match="@") as caught:
            call()
        assert caught.value.error_code == "PERMISSION_DENIED"
    logged.delete_artifacts()
    assert listing(logged) == []
    assert read_tree(frozen.download_artifacts(""))["a.txt"] == b"alpha"


def test_a_cid_is_not_readable_below_a_path_where_it_was_not_frozen(store: ContentStore, directory: Path) -> None:
    cid = store.add(directory).cid
    with pytest.raises(MlflowException, match="not frozen") as caught:
        get_artifact_repository(f"mfs://mlflow/2/@{cid}").list_artifacts()
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_private_copy_may_be_written_without_reaching_the_store(logged: Any, store: ContentStore) -> None:
    private = Path(logged.download_artifacts("model"))
    assert private.is_relative_to(store.storage.make_view_directory().parent.parent)
    (private / "registered_model_meta").write_text("MLflow writes this")
    (private / "a.txt").write_text("changed")
    (private / "big.bin").unlink()
    (private / "big.bin").write_bytes(b"changed")
    again = read_tree(logged.download_artifacts("model"))
    assert again["a.txt"] == b"alpha"
    assert again["big.bin"] == BIG
    assert "registered_model_meta" not in again


def test_exported_files_are_the_users_own(frozen: Any, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    file = Path(frozen.download_artifacts("big.bin", str(target)))
    assert file.stat().st_nlink == 1
    with file.open("r+b") as opened:
        opened.write(b"changed")
    assert Path(frozen.get_local_path("big.bin")).read_bytes() == BIG


def test_an_uri_that_names_a_file_gives_the_file(store: ContentStore, directory: Path, tmp_path: Path) -> None:
    cid = store.add(directory).cid
    target = tmp_path / "target"
    target.mkdir()
    path = get_artifact_repository(f"ipfs://{cid}/sub/deep/ünïcode name.txt").download_artifacts("", str(target))
    assert path == str(target / "ünïcode name.txt")
    lone = store.resolve(cid, "a.txt")
    assert Path(get_artifact_repository(f"ipfs://{lone}").download_artifacts("")).read_text() == "alpha"


def test_a_file_is_replaced_by_logging_it_again(logged: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("second")
    logged.log_artifact(str(file), "model")
    assert Path(logged.download_artifacts("model/a.txt")).read_text() == "second"
    assert Path(logged.download_artifacts("model/sub/.hidden")).read_text() == "hidden"


def test_a_file_under_a_file_is_a_conflict(logged: Any, directory: Path) -> None:
    with pytest.raises(MlflowException) as caught:
        logged.log_artifact(str(directory / "a.txt"), "model/a.txt")
    assert caught.value.error_code == "RESOURCE_CONFLICT"


def test_deleting_is_idempotent_and_takes_what_is_below(logged: Any) -> None:
    logged.delete_artifacts("model/sub")
    assert [path for path, _, _ in listing(logged, "model")] == ["model/a.txt", "model/big.bin", "model/empty"]
    logged.delete_artifacts("model/sub")
    logged.delete_artifacts("never/was/there")
    logged.delete_artifacts()
    logged.delete_artifacts()
    assert listing(logged) == []


def test_a_local_file_that_is_absent_is_named(store: ContentStore, tmp_path: Path) -> None:
    del store
    repository = get_artifact_repository(RUN)
    with pytest.raises(MlflowException, match=r"absent\.txt") as caught:
        repository.log_artifact(str(tmp_path / "absent.txt"))
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_an_unreadable_file_is_refused_and_nothing_is_published(ordinary_user: OrdinaryUser) -> None:
    def log_unreadable(directory: Path) -> list[Any]:
        os.environ |= {"MLFLOW_IPFS_STORE": f"local:{directory}/store", "XDG_CONFIG_HOME": str(directory)}
        (directory / "tree").mkdir()
        (directory / "tree/a.txt").write_text("readable")
        (directory / "tree/b.txt").write_text("secret")
        (directory / "tree/b.txt").chmod(0)
        repository = get_artifact_repository(RUN)
        with pytest.raises(PermissionError, match=r"b\.txt"):
            repository.log_artifacts(str(directory / "tree"))
        return listing(repository)

    assert ordinary_user.run(log_unreadable, ordinary_user.directory) == []


def test_a_store_that_this_user_may_not_use_is_named_with_the_remedy(ordinary_user: OrdinaryUser) -> None:
    def log(directory: Path) -> tuple[str, str]:
        os.environ |= {"MLFLOW_IPFS_STORE": f"local:{directory}/store", "XDG_CONFIG_HOME": str(directory)}
        (directory / "a.bin").write_bytes(BIG)
        repository = get_artifact_repository(RUN)
        repository.log_artifact(str(directory / "a.bin"))
        (stored,) = (directory / "store" / "files").iterdir()
        stored.chmod(0)
        with pytest.raises(MlflowException, match=f"{stored} .*chmod u") as read:
            repository.download_artifacts("a.bin", str(directory))
        stored.chmod(0o700)
        (directory / "store" / "files").chmod(0o500)
        (directory / "a.bin").write_bytes(BIG + b"more")
        with pytest.raises(MlflowException, match="files .*chmod u") as written:
            repository.log_artifact(str(directory / "a.bin"))
        return str(read.value.error_code), str(written.value.error_code)

    assert ordinary_user.run(log, ordinary_user.directory) == ("PERMISSION_DENIED", "PERMISSION_DENIED")


def test_the_server_gets_a_path_only_where_no_browser_needs_a_type(logged: Any, tmp_path: Path) -> None:
    assert Path(logged.get_local_path("model/big.bin")).read_bytes() == BIG
    (tmp_path / "page.html").write_bytes(b"<p>" * 700_000)
    logged.log_artifact(str(tmp_path / "page.html"))
    assert logged.get_local_path("page.html") is None  # copied under its own name: text/html
    assert logged.get_local_path("model/a.txt") is None


def test_the_server_is_told_that_a_directory_is_no_file(logged: Any, frozen: Any) -> None:
    for repository, path in ((logged, "model"), (logged, "model/sub"), (frozen, "sub")):
        with pytest.raises(MlflowException, match="directory") as caught:
            repository.get_local_path(path)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_symlinks_in_content_never_lead_out_of_it(store: ContentStore, directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_text("the server's own file")
    (directory / "inside").symlink_to("sub/deep/ünïcode name.txt")
    (directory / "sub/up").symlink_to("../big.bin")
    (directory / "absolute").symlink_to(secret)
    (directory / "outside").symlink_to("../secret.bin")
    (directory / "loop").symlink_to("loop")
    repository = get_artifact_repository(f"ipfs://{store.add(directory).cid}")
    assert Path(repository.download_artifacts("inside")).read_text() == "deep"
    assert Path(repository.get_local_path("sub/up")).read_bytes() == BIG
    for name in ("absolute", "outside", "loop"):
        for call in (repository.download_artifacts, repository.get_local_path):
            with pytest.raises(MlflowException) as caught:
                call(name)
            assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_damage_is_named_and_never_handed_on(store: ContentStore, directory: Path, tmp_path: Path) -> None:
    cid = store.add(directory).cid
    repository = get_artifact_repository(f"ipfs://{cid}")
    file = Path(repository.get_local_path("big.bin"))
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.seek(1_500_000)
        opened.write(b"\xff\x00\xff")
    target = tmp_path / "target"
    target.mkdir()
    assert repository.get_local_path("big.bin") is None  # it hashes nothing: the download that follows does
    calls: list[Callable[[], object]] = [
        lambda: repository.download_artifacts("big.bin", str(target)),
        lambda: repository.download_artifacts("", str(target)),
    ]
    for call in calls:
        with pytest.raises(MlflowException, match="bafy|bafk"):
            call()
    assert not (target / "big.bin").exists()


def test_constructing_does_no_io(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_STORE", f"local:{tmp_path}/never-made")
    for uri in (RUN, "ipfs://bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354/a"):
        repr(get_artifact_repository(uri))
    assert not (tmp_path / "never-made").exists()
