"""A loss of power, replayed: what a disk may hold afterwards, at every step of a recorded workload.

``RecordingDisk`` notes every step that a store takes. ``replay`` goes through the steps and builds, at any of
them, directories that a disk may show after the power was lost there: bytes and names that were not synced may be
there, may be missing or may be torn, each for itself. A rename between two directories counts as two names: the
harshest reading of POSIX. SQLite's own writes do not go through ``Disk``, so its files are copied when a commit
or a checkpoint returns, which under ``synchronous=FULL`` means that they are durable; before a commit returns, any
part of what it appends to the log may be there, and before a checkpoint returns any of the pages that it moves.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.system.disk import Disk
from support.storages import steps_except

if TYPE_CHECKING:
    import os
    import random
    import sqlite3
    from collections.abc import Iterator

NOT_RECORDED: Final = {
    "make_read_only": "changes a mode, on which nothing depends",
    "clone": "writes into views, which are not needed after the process has ended",
    "copy": "writes into views, which are not needed after the process has ended",
}
STYLES: Final = ("least", "names", "bytes", "random")
_PAGE_BYTES: Final = 4096


@dataclass
class File:
    """A file's bytes, and how many of them are durable; -1 if not even that it exists."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = -1


@dataclass
class Directory:
    """The durable names in a directory, and the changes since it was last synced: name and file, or None if removed."""

    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[tuple[str, File | Directory | None]] = field(default_factory=list)

    def now(self) -> dict[str, File | Directory]:
        """The names that programs see."""
        return _apply(self.durable, self.pending)


def _apply(
    names: dict[str, File | Directory], changes: list[tuple[str, File | Directory | None]]
) -> dict[str, File | Directory]:
    result = dict(names)
    for name, node in changes:
        result.pop(name, None)
        if node is not None:
            result[name] = node
    return result


@dataclass(frozen=True)
class Event:
    """One step: its name and what it was about."""

    kind: str
    about: tuple[Any, ...] = ()


class RecordingDisk(Disk):
    """Notes every change below a store. Syncs nothing: that is what the replay is for.

    Args:
        store: the store's directory.
        sync_files: whether syncing a file counts.
        sync_directories: whether syncing a directory counts.
    """

    def __init__(self, store: Path, *, sync_files: bool = True, sync_directories: bool = True) -> None:
        self.events: list[Event] = []
        self._store = store
        self._sync_files = sync_files
        self._sync_directories = sync_directories
        self._guard = threading.RLock()
        self._numbers: dict[int, int] = {}  # of a descriptor's file
        self._count = 0

    def create(self, path: Path, mode: int | None = None) -> int:
        with self._guard:
            descriptor = super().create(path, mode)
            if path.is_relative_to(self._store):
                self._count += 1
                self._numbers[descriptor] = self._count
                self._note("create", self._name(path), self._count)
            return descriptor

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        with self._guard:
            super().write(descriptor, data)
            if descriptor in self._numbers:
                self._note("write", self._numbers[descriptor], bytes(data))

    def sync(self, descriptor: int) -> None:
        with self._guard:
            if self._sync_files and descriptor in self._numbers:
                self._note("sync", self._numbers[descriptor])

    def sync_directory(self, path: Path) -> None:
        with self._guard:
            if self._sync_directories and path.is_relative_to(self._store):
                self._note("sync_directory", self._name(path))

    def seal(self, descriptor: int) -> os.stat_result:
        with self._guard:
            return super().seal(descriptor)

    def set_mtime(self, descriptor: int, mtime_ns: int) -> None:
        with self._guard:  # a time that is lost only means that the file is hashed, or copied, once more
            super().set_mtime(descriptor, mtime_ns)

    def close(self, descriptor: int) -> None:
        with self._guard:
            self._numbers.pop(descriptor, None)
            super().close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        with self._guard:
            super().rename(source, destination)
            self._note("rename", self._name(source), self._name(destination))

    def link(self, source: Path, destination: Path) -> None:
        with self._guard:
            super().link(source, destination)
            self._note("link", self._name(source), self._name(destination))

    def remove(self, path: Path) -> None:
        with self._guard:
            super().remove(path)
            if path.is_relative_to(self._store):
                self._note("remove", self._name(path))

    def make_directory(self, path: Path) -> None:
        with self._guard:
            super().make_directory(path)
            self._note("make_directory", self._name(path))

    def remove_tree(self, path: Path) -> None:
        with self._guard:
            super().remove_tree(path)
            self._note("remove", self._name(path))

    def allocate(self, path: Path, size_bytes: int) -> None:
        """Make no reserve: with its four MiB every state would be slow to build."""

    def commit(self, connection: sqlite3.Connection) -> None:
        with self._guard:
            super().commit(connection)
            self.note_database("commit")

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        with self._guard:
            super().checkpoint(connection)
            self.note_database("checkpoint")

    def copy_database(self, connection: sqlite3.Connection, path: Path) -> int:
        with self._guard:
            descriptor = super().copy_database(connection, path)
            self._note("write", self._numbers[descriptor], path.read_bytes())
            return descriptor

    def note_database(self, kind: str) -> None:
        """Note SQLite's files as they are: all of it is durable."""
        self._note(kind, *(_read(self._store / name) for name in ("store.db", "store.db-wal")))

    def acknowledge(self, names: Any) -> None:
        """Note what the caller of the store has been told."""
        with self._guard:
            self._note("acknowledge", names)

    def _note(self, kind: str, *about: Any) -> None:
        self.events.append(Event(kind, about))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._store))


_missing = steps_except(NOT_RECORDED) - vars(RecordingDisk).keys()
if _missing:
    msg = f"RecordingDisk has to record {', '.join(sorted(_missing))} of Disk, or NOT_RECORDED to say why it need not"
    raise TypeError(msg)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@dataclass
class Moment:
    """The disk after some steps of a workload.

    Attributes:
        step: how many of the events have happened.
        told: what was acknowledged last; None before the first time.
    """

    events: list[Event]
    step: int = 0
    told: Any = None
    root: Directory = field(default_factory=Directory)
    _files: dict[int, File] = field(default_factory=dict)
    _database: tuple[bytes, bytes] = b"", b""

    def advance(self) -> None:
        """Take the next step."""
        event = self.events[self.step]
        self.step += 1
        getattr(self, f"_{event.kind}")(*event.about)

    def about_to_tell(self) -> Any:
        """What will be acknowledged next: an operation under way may have happened or not."""
        later = (event.about[0] for event in self.events[self.step :] if event.kind == "acknowledge")
        return next(later, self.told)

    def names(self, below: str) -> set[str]:
        """Every file's path below a directory, as programs see it."""
        found = set()
        for name, node in self._directory(below).now().items():
            found |= self.names(f"{below}/{name}") if isinstance(node, Directory) else {f"{below}/{name}"}
        return found

    def build(self, target: Path, style: str, chance: random.Random) -> None:
        """Make a directory as the disk may show it after the power was lost now.

        Args:
            target: the directory, which must not be there.
            style: ``least``: nothing that isn't durable is there; ``names``: every name, no byte; ``bytes``: every name
                and byte; ``random``: any of it, torn.
            chance: decides.
        """
        target.mkdir(mode=0o700)
        _build_directory(self.root, target, style, chance)
        database, log = self._database_now(style, chance)
        if database:
            (target / "store.db").write_bytes(database)
        if log:
            (target / "store.db-wal").write_bytes(log)

    def _database_now(self, style: str, chance: random.Random) -> tuple[bytes, bytes]:
        database, log = self._database
        index = next((i for i in range(self.step, len(self.events)) if self._is_database(i)), None)
        if index is None or style == "least":
            return database, log
        kind, (next_database, next_log) = self.events[index].kind, self.events[index].about
        if kind == "commit" and next_database == database and next_log.startswith(log):
            # The whole commit only if it is the next step: those between are steps that it waits for.
            end = len(next_log) if index == self.step else max(len(log), len(next_log) - _PAGE_BYTES)
            return database, next_log[: end if style == "bytes" else chance.randint(len(log), end)]
        if kind == "checkpoint" and index == self.step:
            return _mix_pages(database, next_database, chance), log
        return database, log

    def _is_database(self, index: int) -> bool:
        return self.events[index].kind in {"commit", "checkpoint", "closed"}

    def _directory(self, path: str) -> Directory:
        directory = self.root
        for part in Path(path).parts:
            node = directory.now()[part]
            assert isinstance(node, Directory)
            directory = node
        return directory

    def _change(self, path: str, node: File | Directory | None) -> None:
        place = Path(path)
        self._directory(str(place.parent)).pending.append((place.name, node))

    def _node(self, path: str) -> File | Directory | None:
        place = Path(path)
        return self._directory(str(place.parent)).now().get(place.name)

    def _create(self, path: str, number: int) -> None:
        self._files[number] = File()
        self._change(path, self._files[number])

    def _write(self, number: int, data: bytes) -> None:
        self._files[number].data += data

    def _sync(self, number: int) -> None:
        self._files[number].synced = len(self._files[number].data)

    def _sync_directory(self, path: str) -> None:
        directory = self._directory(path)
        directory.durable = directory.now()
        directory.pending.clear()

    def _rename(self, source: str, destination: str) -> None:
        node = self._node(source)
        assert node is not None
        self._change(destination, node)
        self._change(source, None)

    def _link(self, source: str, destination: str) -> None:
        self._change(destination, self._node(source))

    def _remove(self, path: str) -> None:
        if self._node(path) is not None:
            self._change(path, None)

    def _make_directory(self, path: str) -> None:
        if self._node(path) is None:
            self._change(path, Directory())

    def _commit(self, database: bytes, log: bytes) -> None:
        self._database = database, log

    _checkpoint = _closed = _commit

    def _acknowledge(self, names: Any) -> None:
        self.told = names


def _mix_pages(old: bytes, new: bytes, chance: random.Random) -> bytes:
    """Some pages as they were, some as they will be."""
    old = old.ljust(len(new), b"\0")
    starts = range(0, len(new), _PAGE_BYTES)
    return b"".join(chance.choice((old, new))[start : start + _PAGE_BYTES] for start in starts)


def _build_directory(directory: Directory, target: Path, style: str, chance: random.Random) -> None:
    kept = directory.pending if style in {"names", "bytes"} else []
    if style == "random":
        kept = [change for change in directory.pending if chance.random() < 0.5]
    for name, node in _apply(directory.durable, kept).items():
        path = target / name
        if isinstance(node, Directory):
            path.mkdir(mode=0o700)
            _build_directory(node, path, style, chance)
        else:
            path.write_bytes(_bytes_of(node, style, chance))


def _bytes_of(file: File, style: str, chance: random.Random) -> bytes:
    durable, rest = bytes(file.data[: max(file.synced, 0)]), bytes(file.data[max(file.synced, 0) :])
    if style == "bytes":
        return durable + rest
    if style != "random" or not rest:
        return durable
    torn = rest[: chance.randint(0, len(rest))]
    return durable + (torn if chance.random() < 0.5 else bytes(len(rest) - len(torn)) + torn)


def replay(events: list[Event]) -> Iterator[Moment]:
    """The disk before the first step, and after each."""
    moment = Moment(events)
    yield moment
    while moment.step < len(events):
        moment.advance()
        yield moment
