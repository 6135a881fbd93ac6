"""Simulation of a power loss: the possible states of a disk after every step of a recorded workload.

``RecordingDisk`` records every step of a store. ``replay`` repeats the steps. At any step, it can build directories
with a state that the disk may have after a power loss. Data and names that were not synced may be present, missing or
torn, independently of each other. A rename between two directories counts as two changes of names, which is the
strictest interpretation of POSIX.

The writes of SQLite do not use ``Disk``. Therefore its files are copied when a commit or a checkpoint returns; under
``synchronous=FULL`` they are durable then. Before a commit returns, any part of the data that it appends to the log may
be present. Before a checkpoint returns, any of the pages that it moves may be present.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.system.disk import Disk
from support.storages import steps_except

if TYPE_CHECKING:
    import random
    import sqlite3
    from collections.abc import Iterator

NOT_RECORDED: Final = {
    "make_read_only": "changes only a mode, which the store does not rely on",
    "clone": "writes only to views, which are not needed after the process has ended",
    "copy": "writes only to views, which are not needed after the process has ended",
}
STYLES: Final = ("least", "names", "bytes", "random")
_PAGE_BYTES: Final = 4096


@dataclass
class File:
    """Data of a file and the number of durable bytes, which is -1 if even the existence of the file is not durable."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = -1


@dataclass
class Directory:
    """Durable names of a directory, and the changes since its last sync: a name and its file, or None if removed."""

    durable: dict[str, File | Directory] = field(default_factory=dict)
    pending: list[tuple[str, File | Directory | None]] = field(default_factory=list)

    def now(self) -> dict[str, File | Directory]:
        """Return the names that programs see."""
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
    """Recorded step: its name and its arguments."""

    kind: str
    arguments: tuple[Any, ...] = ()


class RecordingDisk(Disk):
    """Disk that records every change below a store. It does not sync, because the replay simulates the power loss.

    Args:
        store: directory of the store.
        sync_files: whether to record the sync of a file.
        sync_directories: whether to record the sync of a directory.
    """

    def __init__(self, store: Path, *, sync_files: bool = True, sync_directories: bool = True) -> None:
        self.events: list[Event] = []
        self._store = store
        self._sync_files = sync_files
        self._sync_directories = sync_directories
        self._guard = threading.RLock()
        self._numbers: dict[int, int] = {}  # numbers of files by descriptor
        self._count = 0

    def create(self, path: Path, mode: int | None = None) -> int:
        with self._guard:
            descriptor = super().create(path, mode)
            if path.is_relative_to(self._store):
                self._count += 1
                self._numbers[descriptor] = self._count
                self._record("create", self._name(path), self._count)
            return descriptor

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> None:
        with self._guard:
            super().write(descriptor, data)
            if descriptor in self._numbers:
                self._record("write", self._numbers[descriptor], bytes(data))

    def sync(self, descriptor: int) -> None:
        with self._guard:
            if self._sync_files and descriptor in self._numbers:
                self._record("sync", self._numbers[descriptor])

    def sync_directory(self, path: Path) -> None:
        with self._guard:
            if self._sync_directories and path.is_relative_to(self._store):
                self._record("sync_directory", self._name(path))

    def seal(self, descriptor: int) -> os.stat_result:
        with self._guard:
            return super().seal(descriptor)

    def set_mtime(self, descriptor: int, mtime_ns: int) -> None:
        with self._guard:  # not recorded: if the time is lost, the file is only hashed or copied again
            super().set_mtime(descriptor, mtime_ns)

    def close(self, descriptor: int) -> None:
        with self._guard:
            self._numbers.pop(descriptor, None)
            super().close(descriptor)

    def rename(self, source: Path, destination: Path) -> None:
        with self._guard:
            super().rename(source, destination)
            self._record("rename", self._name(source), self._name(destination))

    def link(self, source: Path, destination: Path) -> None:
        with self._guard:
            super().link(source, destination)
            self._record("link", self._name(source), self._name(destination))

    def remove(self, path: Path) -> None:
        with self._guard:
            super().remove(path)
            if path.is_relative_to(self._store):
                self._record("remove", self._name(path))

    def make_directory(self, path: Path) -> None:
        with self._guard:
            super().make_directory(path)
            self._record("make_directory", self._name(path))

    def remove_tree(self, path: Path) -> None:
        with self._guard:
            super().remove_tree(path)
            self._record("remove", self._name(path))

    def allocate(self, path: Path, size_bytes: int) -> None:
        """Do nothing, because the 4 MiB of the reserve would make every state slow to build."""

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
            self._record("write", self._numbers[descriptor], path.read_bytes())
            return descriptor

    def note_database(self, kind: str) -> None:
        """Record the current files of SQLite, which are durable."""
        self._record(kind, *(_read(self._store / name) for name in ("store.db", "store.db-wal")))

    def acknowledge(self, names: Any) -> None:
        """Record the names that the store has acknowledged to its caller."""
        with self._guard:
            self._record("acknowledge", names)

    def _record(self, kind: str, *arguments: Any) -> None:
        self.events.append(Event(kind, arguments))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._store))


_missing = steps_except(NOT_RECORDED) - vars(RecordingDisk).keys()
if _missing:
    msg = f"RecordingDisk must record {', '.join(sorted(_missing))} of Disk, or NOT_RECORDED must state why not"
    raise TypeError(msg)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@dataclass
class Moment:
    """State of the disk after some steps of a workload.

    Attributes:
        step: number of the events that have happened.
        told: names that were acknowledged last, or None if none were.
    """

    events: list[Event]
    step: int = 0
    told: Any = None
    root: Directory = field(default_factory=Directory)
    _files: dict[int, File] = field(default_factory=dict)
    _database: tuple[bytes, bytes] = b"", b""

    def advance(self) -> None:
        """Apply the next event."""
        event = self.events[self.step]
        self.step += 1
        getattr(self, f"_{event.kind}")(*event.arguments)

    def about_to_tell(self) -> Any:
        """Return the names that will be acknowledged next: a running operation may or may not have taken effect."""
        later = (event.arguments[0] for event in self.events[self.step :] if event.kind == "acknowledge")
        return next(later, self.told)

    def names(self, below: str) -> set[str]:
        """Return the path of every file below a directory, as programs see it."""
        found = set()
        for name, node in self._directory(below).now().items():
            found |= self.names(f"{below}/{name}") if isinstance(node, Directory) else {f"{below}/{name}"}
        return found

    def build(self, target: Path, style: str, chance: random.Random) -> None:
        """Make a directory with a state that the disk may have after a power loss at this moment.

        Args:
            target: path of the directory, which must not exist.
            style: which of the changes that are not durable are present. ``least``: none; ``names``: all names, but no
                data; ``bytes``: all names and data; ``random``: a random selection, with torn data.
            chance: source of the random decisions.
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
        kind, (next_database, next_log) = self.events[index].kind, self.events[index].arguments
        if kind == "commit" and next_database == database and next_log.startswith(log):
            # The commit can be complete only if it is the next step: it waits for the steps before it.
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
        parent, name = os.path.split(path)
        self._directory(parent).pending.append((name, node))

    def _node(self, path: str) -> File | Directory | None:
        parent, name = os.path.split(path)
        return self._directory(parent).now().get(name)

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
    """Return a database with a random mix of old and new pages."""
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
    """Yield the state of the disk before the first step, and after each step."""
    moment = Moment(events)
    yield moment
    while moment.step < len(events):
        moment.advance()
        yield moment
