"""Copies of a whole store: written beside what was there before, then put in its place.

A copy is a directory with the files and, once it is finished, the index: a store like any other. Into
a directory that has a copy already only new files are copied, because files never change. Until the
new index is in its place the former copy is whole; what is left over then is removed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.backup.files import status_of, translate_copy_errors
from mlflow_ipfs.content.storage.local.backup.index_copy import BackupIndex, copy_index, read_files
from mlflow_ipfs.content.storage.local.backup.snapshot import Participant, capture
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter
from mlflow_ipfs.content.storage.local.index import layout
from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.storage.local.reading.objects import ObjectChecker
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.local.backup.index_copy import BackupFile
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext
    from mlflow_ipfs.content.storage.maintenance import ScrubReport
    from mlflow_ipfs.content.system.disk import Disk

_COPY_BYTES: Final = 1 << 20
_ADVICE: Final = ". Add the content again to heal it"  # right for the store, wrong for a copy of it


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What copying a store did.

    Attributes:
        taken_at: the moment that the copy shows, in seconds since 1970.
        files: how many files the copy consists of.
        size_bytes: how large they are.
        copied_files: how many of them were not there before.
        copied_bytes: how large these are.
        hashed_blocks: how many blocks were read back and hashed.
        problems: what is damaged or missing in the copy, as a rule because it is so in the store; each says so.
    """

    taken_at: float
    files: int
    size_bytes: int
    copied_files: int
    copied_bytes: int
    hashed_blocks: int
    problems: tuple[tuple[CID, str], ...]


def back_up_store(
    context: StoreContext, reader: BlockReader, writer: BackupWriter, participant: Participant, *, verify: bool
) -> BackupReport:
    """Copy a store that goes on working, and its participant, as both are in one moment.

    The index of the copy is left, finished and durable, in the writer's work directory: see ``install``.

    Args:
        context: the store.
        reader: reads its blocks.
        writer: writes the copy.
        participant: copied in the same state.
        verify: hash what is copied.

    Raises:
        StoreBusyError: the moment was not found within the time limit.
        StoreFullError: there is no room, on the disk that the message names.
        IntegrityError: the copy's disk does not give back what was written to it.
    """
    moment = capture(context, participant, writer.lacks)
    try:
        found = writer.write(moment.index, moment.files, moment.kept, verify=verify)
        with translate_copy_errors(writer.directory):
            copy_durably(writer.disk, moment.index, writer.work / INDEX)
    finally:
        context.disk.remove_tree(moment.index.parent)
    checker = ObjectChecker(context, reader, verify_always=True)
    problems = tuple((cid, _explain(checker, reader, writer.directory, cid, reason)) for cid, reason in found.problems)
    return _report(writer, moment.taken_at, moment.files, found, problems)


def copy_backup(source: Path, index: Path, writer: BackupWriter, *, verify: bool) -> tuple[str, BackupReport]:
    """Copy a copy, in which nobody works. The new index is left in the writer's work directory: see ``install``.

    Args:
        source: the copy's directory.
        index: its index, wherever that lies.
        writer: writes the new copy.
        verify: hash what is copied.

    Returns:
        The store's id, and what was done.

    Raises:
        StoreFormatError: the index is damaged, or of a newer format.
        StoreFullError, IntegrityError: as ``back_up_store``.
    """
    draft = writer.work / INDEX
    with translate_copy_errors(writer.directory):
        writer.disk.close(writer.disk.create(draft))  # SQLite itself would create it with the owner of this process
        store_id = copy_index(index, draft)
        with BackupIndex(draft) as cloned:
            files = cloned.list_files()
        sources = {file.id: source / file.name for file in files if _lies_there(source / file.name)}
        found = writer.write(draft, files, sources, verify=verify)
        descriptor = writer.disk.open_to_read(draft)
        try:
            writer.disk.sync(descriptor)
        finally:
            writer.disk.close(descriptor)
    return store_id, _report(writer, index.stat().st_mtime, files, found, found.problems)


def _lies_there(path: Path) -> bool:
    """Whether a file is where its name says; a directory that is a link leads elsewhere."""
    return status_of(path) is not None and not path.parent.is_symlink() and not path.parent.parent.is_symlink()


def _report(
    writer: BackupWriter,
    taken_at: float,
    files: Collection[BackupFile],
    found: ScrubReport,
    problems: tuple[tuple[CID, str], ...],
) -> BackupReport:
    return BackupReport(
        taken_at=taken_at,
        files=len(files),
        size_bytes=sum(file.size_bytes for file in files),
        copied_files=len(writer.copied),
        copied_bytes=sum(file.size_bytes for file in writer.copied),
        hashed_blocks=found.blocks,
        problems=problems,
    )


def _explain(checker: ObjectChecker, reader: BlockReader, directory: Path, cid: CID, reason: str) -> str:
    """What is wrong in the store itself, where it is noted then; or in the copy alone, and what to do about that."""
    try:
        if checker.find(cid) is None:
            reader.get(cid)
    except IntegrityError as error:
        return str(error)
    except MlflowIpfsError:
        return reason  # the store has let go of it
    except OSError as error:  # the disk under the store doesn't give it, which is no reason to lose the rest
        return f"{cid} can't be read in the store: {error}. Look at its disk. {_ADVICE.removeprefix('. ')}"
    return (
        f"{reason.removesuffix(_ADVICE)}. Only the copy is damaged: run `mlflow-ipfs --store {directory} scrub` and back up "
        "once more, which replaces what scrub finds"
    )


def copy_durably(disk: Disk, source: Path, destination: Path) -> None:
    """Copy a file, of any file system, to a new private one."""
    descriptor = disk.create(destination)
    try:
        with source.open("rb") as original:
            while data := original.read(_COPY_BYTES):
                disk.write(descriptor, data)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def install(disk: Disk, directory: Path, index: Path, store_id: str) -> None:
    """Put a new index in its place, and make a store of the directory if it is none yet. May be done again."""
    where = Layout(directory)
    with translate_copy_errors(directory):
        if index.exists():
            for suffix in ("-wal", "-shm"):  # of somebody who has used the copy as a store
                disk.remove(where.database.with_name(f"{INDEX}{suffix}"))
            disk.rename(index, where.database)
            disk.sync_directory(directory)
        if not layout.is_store(where):
            layout.make_lock_file(where.write_lock)
            where.make_all(disk)
            layout.write_format(where, disk, store_id)


def remove_unnamed(disk: Disk, directory: Path) -> int:
    """Remove files that the index in its place does not name. Returns how many bytes they had."""
    named = {file.name for file in read_files(directory / INDEX)}
    freed_bytes = 0
    for parent in (directory / "quarantine", *(directory / "files").iterdir()):
        if parent.is_symlink() or not parent.is_dir():
            continue
        for path in parent.iterdir():
            status = status_of(path)
            if status is not None and str(path.relative_to(directory)) not in named:
                disk.remove(path)
                freed_bytes += status.st_size
    with suppress(OSError):
        disk.sync_directory(directory / "files")
    return freed_bytes
