"""Copies of a whole store: new files are added to the previous copy, then a new index replaces the previous one.

A store copy is a directory with the files and, when it is finished, the index. It can be opened like any other store.
If the directory contains an earlier copy, only new files are copied, because files never change. The earlier copy stays
complete until the new index replaces its index. Afterwards the files that only the earlier copy needed are removed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.storage.local.backup.files import status_of, translate_copy_errors
from mlflow_ipfs.content.storage.local.backup.index_copy import BackupIndex, copy_index, read_files
from mlflow_ipfs.content.storage.local.backup.snapshot import Participant, take_snapshot
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter
from mlflow_ipfs.content.storage.local.index import layout as layouts
from mlflow_ipfs.content.storage.local.index.layout import Layout
from mlflow_ipfs.content.storage.local.reading.context import HEALING_ADVICE
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


@dataclass(frozen=True, slots=True)
class BackupReport:
    """Report of one copy of a store.

    Attributes:
        taken_at: time of the state that the copy contains, in seconds since 1970.
        files: how many files the copy has.
        size_bytes: total size of these files.
        copied_files: how many of them were copied now.
        copied_bytes: total size of the files that were copied now.
        hashed_blocks: how many blocks were read back and hashed.
        problems: damaged or missing blocks and files of the copy, each with a message. The message says whether the
            store has the same damage, which is the usual case.
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
    """Copy a store that stays in use, and a participant, both in the same state.

    The index of the copy is left, finished and durable, in the writer's work directory: see ``install``.

    Args:
        context: the store.
        reader: reads its blocks.
        writer: writes the copy.
        participant: copied in the same state.
        verify: hash the copied files.

    Raises:
        StoreBusyError: the snapshot could not be taken within the time limit.
        StoreFullError: the disk that the message names is full.
        IntegrityError: the copy's disk does not return the bytes that were written to it.
    """
    snapshot = take_snapshot(context, participant, writer.lacks)
    try:
        found = writer.write(snapshot.index, snapshot.files, snapshot.sources, verify=verify)
        with translate_copy_errors(writer.directory):
            copy_durably(writer.disk, snapshot.index, writer.work / INDEX)
    finally:
        context.disk.remove_tree(snapshot.index.parent)
    checker = ObjectChecker(context, reader, verify_always=True)
    problems = tuple(
        (cid, _explain_problem(checker, reader, writer.directory, cid, reason)) for cid, reason in found.problems
    )
    return _report(writer, snapshot.taken_at, snapshot.files, found, problems)


def copy_backup(source: Path, index: Path, writer: BackupWriter, *, verify: bool) -> tuple[str, BackupReport]:
    """Copy a store copy that is not in use. The new index is left in the writer's work directory: see ``install``.

    Args:
        source: the directory of the store copy.
        index: its index, which may be in another directory.
        writer: writes the new copy.
        verify: hash the copied files.

    Returns:
        The store's id, and the report.

    Raises:
        StoreFormatError: the index is damaged, or of a newer format.
        StoreFullError, IntegrityError: as ``back_up_store``.
    """
    draft = writer.work / INDEX
    with translate_copy_errors(writer.directory):
        writer.disk.close(writer.disk.create(draft))  # SQLite would create it with this process as its owner
        store_id = copy_index(index, draft)
        with BackupIndex(draft) as backup_index:
            files = backup_index.list_files()
        sources = {file.id: source / file.name for file in files if _is_real_file(source / file.name)}
        found = writer.write(draft, files, sources, verify=verify)
        descriptor = writer.disk.open_to_read(draft)
        try:
            writer.disk.sync(descriptor)
        finally:
            writer.disk.close(descriptor)
    return store_id, _report(writer, index.stat().st_mtime, files, found, found.problems)


def _is_real_file(path: Path) -> bool:
    """Return whether a path is a regular file and neither of its two parent directories is a symbolic link."""
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


def _explain_problem(checker: ObjectChecker, reader: BlockReader, directory: Path, cid: CID, reason: str) -> str:
    """Return a message for damage in the copy: whether the store has it too, and what to do.

    Reading the block in the store also records damage that was not known there.
    """
    try:
        if checker.find(cid) is None:
            reader.get(cid)
    except IntegrityError as error:
        return str(error)
    except MlflowIpfsError:
        return reason  # the store does not have the block any more
    except OSError as error:  # the disk cannot read this block; the rest of the backup is still worth making
        return f"{cid} cannot be read in the store: {error}. Check its disk. {HEALING_ADVICE}"
    return (
        # The advice is correct for the store, and wrong for a copy of it.
        f"{reason.removesuffix(f'. {HEALING_ADVICE}')}. Only the copy is damaged: run `mlflow-ipfs --store {directory} scrub` and "
        "back up again, which replaces the damaged files that scrub found"
    )


def copy_durably(disk: Disk, source: Path, destination: Path) -> None:
    """Copy a file, possibly from another file system, to a new file that only this user can read."""
    descriptor = disk.create(destination)
    try:
        with source.open("rb") as original:
            while data := original.read(_COPY_BYTES):
                disk.write(descriptor, data)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def install(disk: Disk, directory: Path, index: Path, store_id: str) -> None:
    """Move a new index to its final path, and make the directory a store if it is not one yet. Safe to repeat."""
    layout = Layout(directory)
    with translate_copy_errors(directory):
        if index.exists():
            for suffix in ("-wal", "-shm"):  # left by a program that has opened the copy as a store
                disk.remove(layout.database.with_name(f"{INDEX}{suffix}"))
            disk.rename(index, layout.database)
            disk.sync_directory(directory)
        if not layouts.is_store(layout):
            layouts.make_lock_file(layout.write_lock)
            layout.make_all(disk)
            layouts.write_format(layout, disk, store_id)


def remove_unnamed(disk: Disk, directory: Path) -> int:
    """Remove the files that the installed index does not name. Return their total size in bytes."""
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
