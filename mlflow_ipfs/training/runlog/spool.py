"""Spool of one run on disk: what MLflow does not have yet, in segments of records, and how far MLflow got.

```
<run log directory>/<id>/   run.json         the run: see ``SpooledRun``
                            00000001.jsonl   records; a segment is deleted when all of it is sent
                            sent             segment and offset of the first record that is not known to be sent
                            dropped          number of points that were dropped, for lack of space or because refused
                            lock             locked by the process that uses the spool
                            files/           files to send as artifacts
```

A process that is killed loses nothing that was appended: bytes are written without a buffer. Its last line may be
incomplete and is then ignored. After a crash, some records may be sent twice, which MLflow does not store twice: a metric
is keyed by name, step, time and value.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from mlflow_ipfs.content.system.locking import try_flock
from mlflow_ipfs.errors import InvalidDataError, StoreBusyError, StoreFormatError
from mlflow_ipfs.training.runlog.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT: Final = 1
SEGMENT_BYTES: Final = 4 << 20
_HEADER: Final = "run.json"
_SUFFIX: Final = ".jsonl"


@dataclass(frozen=True, slots=True)
class SpooledRun:
    """The run that a spool belongs to.

    Attributes:
        id: the id of the spool.
        run_key: value of the tag ``ipfs.runlog_id`` of a run that a run log creates. All processes of a job have the same.
        creates_run: whether this process creates the run; else it waits until another process has created it.
        tracking_uri: where the run is or will be, without user and password.
        run_id: MLflow's id; None while the run has not been created.
        experiment: name of the experiment in which the run is created.
        run_name: name of the run that is created; None for a random one.
        tags: tags of the run that is created.
        created_at: time in ms since 1970.
        node: name of the host.
        pid: the process.
        experiment_id: id of that experiment, if MLflow has told it; ``experiment`` is not used then.
    """

    id: str
    run_key: str
    creates_run: bool
    tracking_uri: str
    run_id: str | None
    experiment: str
    run_name: str | None
    tags: dict[str, str]
    created_at: int
    node: str
    pid: int
    experiment_id: str | None = None


class Position(NamedTuple):
    """Position of a record: the number of the segment, and the offset of the record in it."""

    segment: int
    offset: int


@dataclass
class Spool:
    """A locked spool. Appending and sending may run in two threads.

    Args:
        directory: the directory of the spool.
        run: the run.
        max_bytes: limit of the space that unsent records and files take.
    """

    directory: Path
    run: SpooledRun
    max_bytes: int
    dropped: int = 0
    _lock: int = -1
    _out: int = -1
    _segment: int = 0
    _size: int = 0
    _waiting_bytes: int = 0
    _sent: Position = field(default=Position(0, 0))

    @classmethod
    def create(cls, parent: Path, run: SpooledRun, max_bytes: int) -> Self:
        """Create the spool of a run.

        Raises:
            OSError: the directory cannot be created.
        """
        spool = cls(parent / run.id, run, max_bytes)
        (spool.directory / "files").mkdir(parents=True)
        spool._take()
        spool._write_header()
        return spool

    @classmethod
    def open(cls, directory: Path, max_bytes: int = 1 << 62) -> Self:
        """Open an existing spool to send it.

        Raises:
            StoreBusyError: another process uses it.
            StoreFormatError: it is not a spool that this version can read.
        """
        spool = cls(directory, read_run(directory), max_bytes)
        spool._take()
        spool._sent = spool._read_sent()
        with suppress(OSError, ValueError):
            spool.dropped = int((directory / "dropped").read_text())
        return spool

    def append(self, record: Record) -> bool:
        """Append a record. Return False if the limit is reached.

        Raises:
            OSError: the disk is full or cannot be written to.
        """
        line = record.encode()
        if self._waiting_bytes + len(line) > self.max_bytes:
            return False
        if self._out < 0 or self._size + len(line) > SEGMENT_BYTES:
            self._next_segment()
        written = os.write(self._out, line)
        if written != len(line):  # the disk is full: end the partial line, so that the next record starts on a new one
            os.ftruncate(self._out, self._size)
            msg = f"the disk of {self.directory} is full"
            raise OSError(28, msg)
        self._size += written
        self._waiting_bytes += written
        return True

    def add_file(self, data: bytes) -> str | None:
        """Store a file to send as an artifact. Return its name in the spool; None if the limit is reached."""
        if self._waiting_bytes + len(data) > self.max_bytes:
            return None
        name = uuid.uuid4().hex
        (self.directory / "files" / name).write_bytes(data)
        self._waiting_bytes += len(data)
        return name

    def unsent(self) -> Iterator[tuple[Record, Position]]:
        """Yield the records that are not known to be sent, each with the position after it. Damaged lines are skipped."""
        for number in self._segments():
            if number < self._sent.segment:
                continue
            offset = self._sent.offset if number == self._sent.segment else 0
            with (self.directory / _name(number)).open("rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written, or cut off by a kill
                    offset += len(line)
                    with suppress(InvalidDataError):
                        yield Record.decode(line), Position(number, offset)

    def acknowledge(self, position: Position) -> None:
        """Record that everything before a position is sent, and delete segments that are sent completely."""
        for number in self._segments():
            if number < position.segment:
                with suppress(OSError):
                    self._waiting_bytes -= (self.directory / _name(number)).stat().st_size
                    (self.directory / _name(number)).unlink()
        self._sent = position
        draft = self.directory / "sent.new"
        draft.write_text(f"{position.segment} {position.offset}\n")
        draft.replace(self.directory / "sent")

    def set_run_id(self, run_id: str) -> None:
        """Record the id that MLflow gave the run."""
        self.run = replace(self.run, run_id=run_id)
        self._write_header()

    def set_tracking_uri(self, tracking_uri: str) -> None:
        """Record where the run will be instead. The URI has no user and password."""
        self.run = replace(self.run, tracking_uri=tracking_uri)
        self._write_header()

    def drop(self, points: int) -> None:
        """Count points that will never be sent."""
        self.dropped += points
        with suppress(OSError):  # the disk may be full; the count in memory is reported too
            (self.directory / "dropped").write_text(str(self.dropped))

    def is_sent(self) -> bool:
        """Return whether everything that was appended is sent."""
        return next(self.unsent(), None) is None

    def close(self, *, remove: bool = False) -> None:
        """Release the spool, and remove it if ``remove`` is true."""
        if self._lock < 0:
            return
        if self._out >= 0:
            os.close(self._out)
            self._out = -1
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def _take(self) -> None:
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_flock(self._lock):
            os.close(self._lock)
            self._lock = -1
            msg = f"the run log {self.directory} is in use by process {self.run.pid}; it sends its points itself"
            raise StoreBusyError(msg)

    def _next_segment(self) -> None:
        if self._out >= 0:
            os.close(self._out)
        self._segment = max([*self._segments(), self._sent.segment, self._segment]) + 1
        path = self.directory / _name(self._segment)
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = 0

    def _segments(self) -> list[int]:
        return sorted(int(path.stem) for path in self.directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())

    def _read_sent(self) -> Position:
        try:
            segment, offset = map(int, (self.directory / "sent").read_text().split())
        except (OSError, ValueError):
            return Position(0, 0)  # everything is sent again, which MLflow ignores
        return Position(segment, offset)

    def _write_header(self) -> None:
        draft = self.directory / f"{_HEADER}.new"
        draft.write_text(json.dumps({"format": FORMAT, **asdict(self.run)}))
        draft.replace(self.directory / _HEADER)


def read_run(directory: Path) -> SpooledRun:
    """Return the run of a spool, without locking the spool.

    Raises:
        StoreFormatError: the directory is not a spool that this version can read.
    """
    try:
        fields = json.loads((directory / _HEADER).read_bytes())
        found_format = fields.pop("format")
        run = SpooledRun(**fields) if found_format == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        msg = f"{directory} is not a run log ({error}); remove it if it is not needed"
        raise StoreFormatError(msg) from error
    if run is None:
        msg = f"the run log {directory} has format {found_format}, and this version reads {FORMAT}: upgrade mlflow-ipfs"
        raise StoreFormatError(msg)
    return run


def list_spools(parent: Path) -> list[Path]:
    """Return the directories of all spools, oldest first."""
    found = [path.parent for path in parent.glob(f"*/{_HEADER}")]
    return sorted(found, key=lambda path: (path / "lock").stat().st_mtime if (path / "lock").exists() else 0)


def _name(number: int) -> str:
    return f"{number:08}{_SUFFIX}"
