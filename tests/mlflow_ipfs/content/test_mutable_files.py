"""mfs://: files come and go, a directory's CID is the one that Kubo gives to the same directory, what is frozen stays."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath, check_mutable
from mlflow_ipfs.content.names.entries import MfsDirectory, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import (
    ConflictError,
    ImmutableError,
    InvalidPathError,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
)
from support.mutable_trees import TOP, A, put, store
from support.random_trees import names

if TYPE_CHECKING:
    from pathlib import Path

    from support.unprivileged import OrdinaryUser

__all__ = ["store"]


def paths_of(store: ContentStore, path: str = "") -> list[str]:
    return [entry.path for entry in store.files.list(TOP.join(path))]


@pytest.mark.parametrize(
    ("uri", "root", "path"),
    [
        ("mfs://mlflow", "mlflow", ""),
        ("mfs://mlflow/", "mlflow", ""),
        ("mfs://mlflow/a/b", "mlflow", "a/b"),
        ("mfs://mlflow//a//b/", "mlflow", "a/b"),
        ("MFS://Root/A", "Root", "A"),
        ("mfs://r/é 日/@x", "r", "é 日/@x"),
        ("mfs://r/100%/%2e%2e", "r", "100%/%2e%2e"),
        ("mfs://user@host:1/a", "user@host:1", "a"),
    ],
)
def test_uris_are_read(uri: str, root: str, path: str) -> None:
    assert MfsPath.parse(uri) == MfsPath(root, path)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "mfs:",
        "mfs:/root/a",
        "mfs://",
        "mfs://@x/a",
        "mfs:///a",
        "s3://bucket/a",
        "ipfs://cid",
        "mfs://root/../x",
        "mfs://root/a/..",
        "mfs://root/./a",
        "mfs://../a",
        "mfs://./a",
        "mfs://root/a?b=c",
        "mfs://root?x",
        "mfs://root/a#b",
        "mfs://root/a\0b",
        "mfs://ro\0ot/a",
        "mfs://root/\ud800",
        "root/a",
    ],
)
def test_uris_that_are_refused(uri: str) -> None:
    with pytest.raises(InvalidPathError):
        MfsPath.parse(uri)


@given(parts=st.lists(names().map(lambda name: name.decode("utf-8", "surrogateescape")), max_size=4))
def test_a_path_and_its_uri(parts: list[str]) -> None:
    path = MfsPath("root", "/".join(parts))
    assert path.path == "/".join(parts)
    if not {"?", "#"} & set(path.path):
        assert MfsPath.parse(str(path)) == path


def test_joining_stays_below() -> None:
    assert MfsPath("r", "a").join("b/c") == MfsPath("r", "a/b/c")
    assert MfsPath("r").join("") == MfsPath("r")
    with pytest.raises(InvalidPathError):
        MfsPath("r", "a").join("../b")


def test_a_file_is_put_seen_and_deleted(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"hello")
    entry = store.files.put_file(TOP.join("run/f.txt"), tmp_path / "f")
    assert (entry.cid, entry.size_bytes, entry.name) == (CID.of(b"hello"), 5, "f.txt")
    assert store.files.stat(TOP.join("run/f.txt")) == entry
    assert store.files.stat(TOP.join("run")) == MfsDirectory("mlflow", "run")
    assert store.files.stat(TOP.join("ru")) is None
    assert store.files.stat(MfsPath("other")) is None
    assert store.files.list(TOP.join("run")) == [entry]
    assert store.files.list(TOP.join("nothing")) == []
    assert store.open(entry.cid).read() == b"hello"
    assert store.files.delete(TOP.join("run")) == 1
    assert store.files.delete(TOP.join("run")) == 0
    assert store.files.stat(TOP) is None


def test_the_last_writer_wins(store: ContentStore) -> None:
    put(store, "f", b"one")
    put(store, "f", b"two")
    [entry] = store.files.list(TOP)
    assert isinstance(entry, MfsEntry)
    assert store.open(entry.cid).read() == b"two"


def test_a_file_that_another_program_changed_meanwhile_is_not_replaced(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    old = put(store, "old", b"old")
    put(store, "come", b"another's")
    for path, seen in (("old", None), ("old", CID.of(b"older")), ("come", None), ("gone", old.cid)):
        sources = [(TOP.join("beside"), tmp_path / "new"), (TOP.join(path), tmp_path / "new")]
        with pytest.raises(ConflictError, match=f"mfs://mlflow/{path} was changed by another program meanwhile"):
            store.files.put_files(sources, expected={TOP.join(path): seen})
    assert [(entry.path, entry.cid) for entry in store.files.walk(TOP)] == [
        ("come", CID.of(b"another's")),
        ("old", old.cid),
    ]
    entries, new_bytes = store.files.put_files(
        [(TOP.join("old"), tmp_path / "new"), (TOP.join("none"), tmp_path / "new")],
        expected={TOP.join("old"): old.cid, TOP.join("none"): None},
    )
    assert [entry.cid for entry in entries] == [CID.of(b"new")] * 2
    assert new_bytes == 3


def test_names_are_listed_in_byte_order(store: ContentStore) -> None:
    for name in ("b", "a/x", "B", "é", "a0", "\udcff", "日"):
        put(store, name)
    listed = paths_of(store)
    assert listed == sorted(listed, key=os.fsencode)
    assert set(listed) == {"b", "a", "B", "é", "a0", "\udcff", "日"}


def test_a_file_cannot_be_a_directory_too(store: ContentStore) -> None:
    put(store, "a")
    with pytest.raises(ConflictError):
        put(store, "a/b")
    put(store, "c/d")
    with pytest.raises(ConflictError):
        put(store, "c")
    assert paths_of(store) == ["a", "c"]


def test_the_top_of_a_tree_is_no_file(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    calls: list[Any] = [
        lambda: store.files.put_file(TOP, tmp_path / "f"),
        lambda: store.files.put_stream(TOP, io.BytesIO()),
        lambda: store.files.put_cid(TOP, CID.of(b"x")),
    ]
    for call in calls:
        with pytest.raises(IsDirectoryError):
            call()


@pytest.mark.parametrize("path", ["@x", "a/@bafy", "@", "a/@x/b"])
def test_frozen_names_cannot_be_written(path: str, store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    location = TOP.join(path)
    calls: list[Any] = [
        lambda: store.files.put_file(location, tmp_path / "f"),
        lambda: store.files.put_stream(location, io.BytesIO(b"x")),
        lambda: store.files.put_cid(location, CID.of(b"x")),
        lambda: store.files.put_tree(location, tmp_path),
        lambda: store.files.delete(location),
        lambda: check_mutable(location),
    ]
    for call in calls:
        with pytest.raises(ImmutableError, match="@"):
            call()


def test_a_tree_with_a_reserved_name_is_refused_as_a_whole(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "@b").write_text("b")
    with pytest.raises(ImmutableError):
        store.files.put_tree(A, tmp_path)
    assert store.files.list(TOP) == []


def test_a_signs_elsewhere_are_fine(store: ContentStore) -> None:
    put(store, "user@host/a@b")
    assert paths_of(store) == ["user@host"]


def test_a_tree_is_put_in_one_step_and_symlinks_are_followed(store: ContentStore, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(b"f")
    (tree / ".hidden").write_bytes(b"h")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "g").write_bytes(b"g")
    (tree / "link").symlink_to("../outside/g")
    (tree / "directory").symlink_to("../outside")
    seen: list[int] = []
    entries = store.files.put_tree(A, tree, progress=seen.append)
    assert [entry.path for entry in entries] == ["a/.hidden", "a/directory/g", "a/link", "a/sub/f"]
    assert sum(seen) == 4
    assert store.files.put_tree(A, tree / "sub" / "empty") == []
    assert store.files.put_tree(TOP, tree)[0].path == ".hidden", "a whole tree may stand at the top"


def test_empty_directories_are_kept(store: ContentStore, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "f").write_bytes(b"f")
    (tree / "hollow").mkdir()
    store.files.put_tree(A, tree)
    assert [item.name for item in store.files.list(A)] == ["hollow", "sub"]
    assert [item.name for item in store.files.list(A.join("sub"))] == ["empty", "f"]
    assert store.files.list(A.join("hollow")) == []
    assert isinstance(store.files.stat(A.join("hollow")), MfsDirectory)
    assert [entry.path for entry in store.files.walk(A)] == ["a/sub/f"], "a walk yields files"
    assert store.files.snapshot(A).cid == store.add(tree, hidden=True).cid
    files = [(root.name, root.file_count) for root in store.roots() if root.kind is NameKind.FILE]
    assert files == [("mfs://mlflow/a/hollow", 0), ("mfs://mlflow/a/sub", 1), ("mfs://mlflow/a/sub/empty", 0)]


def test_an_empty_directory_gets_files_and_goes_with_its_parent(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "tree" / "empty").mkdir(parents=True)
    store.files.put_tree(A, tmp_path / "tree")
    put(store, "a/empty/f")
    assert [item.name for item in store.files.list(A.join("empty"))] == ["f"]
    filled = store.files.snapshot(A).cid
    assert [entry.name for entry in store.ls(filled, "empty")] == ["f"]
    store.files.delete(A.join("empty/f"))
    assert store.files.list(A.join("empty")) == [], "as in a file system, the directory stays"
    assert store.files.stat(A.join("empty")) is not None
    with pytest.raises(ConflictError, match="directory"):
        put(store, "a/empty")
    store.files.delete(A)
    assert store.files.stat(A) is None
    put(store, "a/empty")
    with pytest.raises(ConflictError, match="file"):
        store.files.put_tree(A.join("empty"), tmp_path / "tree")


def test_a_tree_without_files_has_no_content_to_freeze(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "tree" / "empty").mkdir(parents=True)
    assert store.files.put_tree(A, tmp_path / "tree") == []
    with pytest.raises(NotFoundError, match="no file at or below"):
        store.files.freeze(A, "someone")


def test_sources_that_cannot_be_put(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    loop = tmp_path / "loop"
    loop.mkdir()
    (loop / "again").symlink_to(".")
    circle = tmp_path / "circle"
    circle.mkdir()
    (circle / "a").symlink_to("b")
    (circle / "b").symlink_to("a")
    dangling = tmp_path / "dangling"
    dangling.mkdir()
    (dangling / "l").symlink_to("nowhere")
    odd = tmp_path / "odd"
    odd.mkdir()
    os.mkfifo(odd / "fifo")
    calls: list[tuple[Any, type[Exception]]] = [
        (lambda: store.files.put_tree(A, tmp_path / "missing"), NotFoundError),
        (lambda: store.files.put_tree(A, tmp_path / "file"), NotDirectoryError),
        (lambda: store.files.put_tree(A, loop), InvalidPathError),
        (lambda: store.files.put_tree(A, circle), InvalidPathError),
        (lambda: store.files.put_tree(A, dangling), NotFoundError),
        (lambda: store.files.put_tree(A, odd), InvalidPathError),
        (lambda: store.files.put_file(A, tmp_path / "missing"), NotFoundError),
        (lambda: store.files.put_file(A, loop), IsDirectoryError),
        (lambda: store.files.put_file(A, odd / "fifo"), InvalidPathError),
    ]
    for call, error in calls:
        with pytest.raises(error):
            call()
    assert store.files.list(TOP) == []


def test_an_unreadable_file_leaves_nothing(ordinary_user: OrdinaryUser) -> None:
    def attempt() -> tuple[bool, int]:
        directory = ordinary_user.directory
        (directory / "a").write_text("a")
        (directory / "secret").write_text("s")
        (directory / "secret").chmod(0)
        with ContentStore(MemoryStorage()) as store:
            try:
                store.files.put_tree(A, directory)
            except PermissionError:
                return True, len(store.files.list(TOP))
        return False, 0

    assert ordinary_user.run(attempt) == (True, 0)


def test_content_can_be_linked(store: ContentStore, tmp_path: Path) -> None:
    cid = store.add_bytes(b"model")
    entry = store.files.put_cid(TOP.join("m"), cid)
    assert (entry.cid, entry.size_bytes, entry.dag_bytes) == (cid, 5, 5)
    (tmp_path / "d").mkdir()
    with pytest.raises(IsDirectoryError, match="directory"):
        store.files.put_cid(TOP.join("d"), store.add(tmp_path / "d").cid)
    with pytest.raises(NotFoundError):
        store.files.put_cid(TOP.join("n"), CID.of(b"not here"))
    assert paths_of(store) == ["m"]


def test_deep_paths(store: ContentStore) -> None:
    deep = "/".join(["d"] * 1500) + "/f"
    put(store, deep)
    cid = store.files.snapshot(TOP).cid
    assert store.open(cid, deep).read() == b"data"


def test_a_stream_that_breaks_leaves_the_old_file(store: ContentStore) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2_000_000:
                msg = "gone"
                raise ConnectionResetError(msg)
            return super().read(min(size or 0, 100_000))

    put(store, "f", b"old")
    with pytest.raises(ConnectionResetError):
        store.files.put_stream(TOP.join("f"), Broken(bytes(3_000_000)))
    [entry] = store.files.list(TOP)
    assert isinstance(entry, MfsEntry)
    assert store.open(entry.cid).read() == b"old"
