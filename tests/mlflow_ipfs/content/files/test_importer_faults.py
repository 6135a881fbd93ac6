"""What can go wrong while files are read: absent, unreadable, changing, no files at all, very deep."""

from __future__ import annotations

import io
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files import source as source_module
from mlflow_ipfs.content.files.chunker import FixedSizeChunker, parse_chunker
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.files.source import SourceKind, stat_source
from mlflow_ipfs.content.files.source_reader import SourceReader
from mlflow_ipfs.content.profiles import PROFILES, UNIXFS_V0_2015, UNIXFS_V1_2025, profile_named
from mlflow_ipfs.errors import (
    InvalidPathError,
    IsDirectoryError,
    NotFoundError,
    SettingsError,
    SourceChangedError,
)
from support.blocks import Blocks, import_into

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.kubo import KuboRepository
    from support.unprivileged import OrdinaryUser

MIB = 1 << 20


def import_path(path: Path | str, options: ImportOptions | None = None) -> CID:
    with Importer(HashOnlyPublication(), options) as importer:
        return importer.import_path(path).link.cid


@pytest.mark.parametrize("name", ["missing", "file/below", "missing/below", "dangling/below"])
def test_absent_paths(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match=name):
        import_path(tmp_path / name)


def test_a_path_with_nul() -> None:
    with pytest.raises(InvalidPathError, match="NUL"):
        import_path("a\0b")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "fifo in a directory", "socket in a directory"])
def test_what_has_no_content_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    with socket.socket(socket.AF_UNIX) as sock:
        if kind.startswith("fifo"):
            os.mkfifo(path)  # opening it would wait for ever
        elif kind.startswith("socket"):
            sock.bind("odd")  # a path of its own would be too long for a socket; tests run in tmp_path
        target = {"device": Path("/dev/null"), "fifo": path, "socket": path}.get(kind, tmp_path)
        with pytest.raises(InvalidPathError, match="neither a file nor a directory"):
            import_path(target)


@pytest.mark.parametrize("is_directory", [True, False], ids=["directory", "file"])
def test_what_may_not_be_read(is_directory: bool, ordinary_user: OrdinaryUser) -> None:
    path = ordinary_user.directory / "secret"
    outer = ordinary_user.directory

    def attempt() -> str:
        if is_directory:
            path.mkdir()
        else:
            path.write_text("x")
        path.chmod(0)
        errors = []
        for target in (path, outer):
            try:
                import_path(target)
            except PermissionError as error:
                errors.append(str(error.filename and os.fsdecode(error.filename)))
        return " ".join(errors)

    assert ordinary_user.run(attempt) == f"{path} {path}"


def run_while_reading(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], *, after_reads: int) -> None:
    """Let something happen to the file after some of its bytes were read."""
    reads = 0
    fill = SourceReader.fill

    def fill_and_change(self: SourceReader, view: memoryview) -> int:
        nonlocal reads
        filled = fill(self, view)
        reads += 1
        if reads == after_reads:
            change()
        return filled

    monkeypatch.setattr(SourceReader, "fill", fill_and_change)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def rewrite(path: Path) -> None:
    """Other bytes, same size, and the old time put back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"Z" * 10)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """Another file of that name: what is being read is not what a reader of the path would see."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("size", [100, 3 * MIB + 5], ids=["small", "large"])
@pytest.mark.parametrize("change", [grow, shrink, rewrite], ids=lambda change: change.__name__)
@pytest.mark.parametrize("profile", PROFILES)
def test_a_file_that_changes_while_it_is_read(
    profile: str, change: Callable[[Path], object], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    run_while_reading(monkeypatch, lambda: change(path), after_reads=1)
    with pytest.raises(SourceChangedError, match="changed while it was read"):
        import_path(path, ImportOptions(profile=profile_named(profile)))


def test_a_file_that_shrinks_below_what_is_still_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a" * 3 * MIB)
    run_while_reading(monkeypatch, lambda: os.truncate(path, 10), after_reads=1)
    with pytest.raises(SourceChangedError):
        import_path(path)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc on this system")
def test_a_file_that_states_no_size_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(SourceChangedError, match="/proc/version"):
        import_path("/proc/version")


@pytest.mark.parametrize("change", [grow, shrink, rewrite, replace], ids=lambda change: change.__name__)
def test_a_file_that_changed_since_its_lstat(
    change: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode and time come from lstat, bytes from the open file: both must be of one file."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    original = stat_source

    def stat_then_change(target: bytes) -> Any:
        source = original(target)
        change(path)
        return source

    monkeypatch.setattr(source_module, "stat_source", stat_then_change)
    with pytest.raises(SourceChangedError):
        import_path(path)


@pytest.mark.parametrize("kind", ["fifo", "symlink", "gone"])
def test_something_else_takes_the_place_of_a_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a")
    original = stat_source

    def stat_then_swap(target: bytes) -> Any:
        source = original(target)
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "symlink":
            path.symlink_to("/etc/hostname")
        return source

    monkeypatch.setattr(source_module, "stat_source", stat_then_swap)
    with pytest.raises(SourceChangedError):
        import_path(path)


def test_a_name_that_vanishes_from_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    monkeypatch.setattr(source_module, "list_directory", lambda _: [b"a", b"gone"])
    with pytest.raises(SourceChangedError, match="gone"):
        import_path(tmp_path)


@pytest.mark.parametrize("becomes", ["gone", "file"])
def test_a_symlink_that_is_none_any_more(becomes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "link"
    path.symlink_to("x")
    original = stat_source

    def stat_then_swap(target: bytes) -> Any:
        source = original(target)
        path.unlink()
        if becomes == "file":
            path.write_text("x")
        return source

    monkeypatch.setattr(source_module, "stat_source", stat_then_swap)
    with pytest.raises(SourceChangedError):
        import_path(path)


def test_a_file_that_is_written_to_all_the_time(tmp_path: Path) -> None:
    """A real writer: the import fails, or its CID is that of a state in which nobody wrote."""
    path = tmp_path / "busy"
    path.write_bytes(b"0" * 4 * MIB)
    ended = threading.Event()

    def keep_writing() -> None:
        with path.open("r+b", buffering=0) as file:
            while not ended.is_set():
                file.seek(0)
                file.write(os.urandom(64))

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        outcomes: list[CID | None] = []
        for _ in range(10):
            try:
                outcomes.append(import_path(path))
            except SourceChangedError:
                outcomes.append(None)
    finally:
        ended.set()
        writer.join(30)
    assert None in outcomes
    assert import_path(path) == import_path(path)


@pytest.mark.kubo
def test_directories_deeper_than_pythons_stack(deep_path: Path, kubo_v1: KuboRepository) -> None:
    deep = deep_path / "deep"
    deep.mkdir()
    current = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)
    blocks = Blocks()
    imported = import_into(blocks, deep)
    assert str(imported.link.cid) == kubo_v1("add", "-r", "-Q", "--only-hash", deep)
    Exporter(blocks).export(imported.link.cid, deep_path / "out")
    assert import_path(deep_path / "out") == imported.link.cid


def test_import_file_follows_symlinks_and_takes_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    with Importer(HashOnlyPublication()) as importer:
        assert importer.import_file(tmp_path / "link").link.cid == CID.of(b"hello")
        for name, error in (("dangling", NotFoundError), ("circle", InvalidPathError), (".", IsDirectoryError)):
            with pytest.raises(error):
                importer.import_file(tmp_path / name)


class BadChunker:
    def __init__(self, ends: list[int]) -> None:
        self.ends = ends

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        del file, size_bytes
        yield from self.ends


@pytest.mark.parametrize("size", [10, 3 * MIB])
@pytest.mark.parametrize("ends", [[], [5], [0, 10], [5, 5], [7, 3], [5, 11], [5 * MIB], [10, 2 * MIB]], ids=str)
def test_a_chunker_that_does_not_cover_the_file_is_an_error(ends: list[int], size: int, tmp_path: Path) -> None:
    """Never a CID of a part of the file."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * size)
    with pytest.raises((SettingsError, SourceChangedError)):
        import_path(path, ImportOptions(chunker=BadChunker(ends)))


class ReadingChunker:
    """Moves about in the file while it is read, as a chunker that parses it does."""

    def cuts(self, file: BinaryIO, size_bytes: int) -> Iterator[int]:
        for end in range(MIB, size_bytes, MIB):
            file.seek(-8, os.SEEK_END)
            assert len(file.read(8)) == 8
            yield end
        yield size_bytes


def test_a_chunker_may_read_the_file_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(5 * MIB + 17))
    assert import_path(path, ImportOptions(chunker=ReadingChunker())) == import_path(path)


@pytest.mark.parametrize("text", ["size-0", "size-1048577", "size-", "size-x", "rabin", "size-1 ", "", "SIZE-1"])
def test_chunkers_that_do_not_exist(text: str) -> None:
    with pytest.raises(SettingsError, match="chunk"):
        parse_chunker(text)


def test_profiles_have_names() -> None:
    assert profile_named("unixfs-v1-2025") is UNIXFS_V1_2025
    with pytest.raises(SettingsError, match="unixfs-v0-2015"):
        profile_named("legacy")


class Stuttering(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe does; and breaks if told to."""

    def __init__(self, data: bytes, step: int, fail_at: int | None = None) -> None:
        self._data = io.BytesIO(data)
        self._step = step
        self._fail_at = fail_at

    def read(self, size: int = -1) -> bytes:
        if self._fail_at is not None and self._data.tell() >= self._fail_at:
            msg = "the other side hung up"
            raise ConnectionResetError(msg)
        return self._data.read(min(size, self._step))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 262_145, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 17])
def test_a_stream_gets_the_cid_of_the_file(size: int, profile: str, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    options = ImportOptions(profile=profile_named(profile))
    blocks = Blocks()
    seen: list[int] = []
    with Importer(blocks, options, progress=seen.append) as importer:
        imported = importer.import_stream(Stuttering(data, 99_991))  # type: ignore[arg-type]
    assert imported.link.cid == import_path(tmp_path / "file", options)
    assert open_unixfs(blocks, imported.link.cid).read() == data
    assert imported.size_bytes == sum(seen) == size


def test_a_stream_is_cut_by_the_chunker(tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    (tmp_path / "file").write_bytes(data)
    for chunk_bytes in (1000, MIB):
        options = ImportOptions(profile=UNIXFS_V0_2015, chunker=FixedSizeChunker(chunk_bytes))
        with Importer(HashOnlyPublication(), options) as importer:
            assert importer.import_stream(io.BytesIO(data)).link.cid == import_path(tmp_path / "file", options)


@pytest.mark.parametrize("fail_at", [0, 1000, 2 * MIB])
def test_a_stream_that_breaks_is_no_shorter_file(fail_at: int) -> None:
    with Importer(HashOnlyPublication()) as importer, pytest.raises(ConnectionResetError):
        importer.import_stream(Stuttering(bytes(3 * MIB), 100_000, fail_at))  # type: ignore[arg-type]


def test_an_importer_goes_on_after_an_error(tmp_path: Path) -> None:
    """Buffers that were being hashed when something failed do not get into the next file."""
    (tmp_path / "a").write_bytes(os.urandom(5 * MIB))
    expected = import_path(tmp_path / "a")
    with Importer(HashOnlyPublication()) as importer:
        for fail_at in (MIB, 2 * MIB, 4 * MIB):
            with pytest.raises(ConnectionResetError):
                importer.import_stream(Stuttering(os.urandom(5 * MIB), MIB, fail_at))  # type: ignore[arg-type]
            assert importer.import_path(tmp_path / "a").link.cid == expected


def test_sources_are_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "l").symlink_to("f")
    kinds = {name: stat_source(os.fsencode(tmp_path / name)).kind for name in ("f", "l", ".")}
    assert kinds == {"f": SourceKind.FILE, "l": SourceKind.SYMLINK, ".": SourceKind.DIRECTORY}


def test_progress_adds_up(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "large").write_bytes(bytes(3 * MIB + 1))
    (tmp_path / "d" / "small").write_bytes(b"small")
    seen: list[int] = []
    with Importer(HashOnlyPublication(), progress=seen.append) as importer:
        imported = importer.import_path(tmp_path / "d")
    assert imported.size_bytes == sum(seen) == 3 * MIB + 6
    assert len(seen) >= 5


def test_hidden_names_are_counted(tmp_path: Path) -> None:
    for name in (".a", ".b", "c"):
        (tmp_path / name).write_text(name)
    with Importer(HashOnlyPublication(), ImportOptions(include_hidden=False)) as importer:
        importer.import_path(tmp_path)
        assert importer.hidden_left_out == 2
        hidden = importer.import_path(tmp_path / ".a")
    assert hidden.link.cid == CID.of(b".a"), "what is named itself is taken, hidden or not"
