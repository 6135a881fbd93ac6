"""The content store: adds files and directories, returns their CIDs, and restores content by CID."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from mlflow_ipfs.content.blocks.read_through import ReadThroughReader
from mlflow_ipfs.content.car import exporting
from mlflow_ipfs.content.car.importing import CarImport
from mlflow_ipfs.content.car.resuming import export_car_file
from mlflow_ipfs.content.checking.compare import compare_with_disk
from mlflow_ipfs.content.checking.completeness import check_complete
from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.dag import UnixFSNode, encode_file_name, read_unixfs, resolve
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Added, Imported, Importer, ImportOptions
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.listing import Entry, describe_node, list_entries
from mlflow_ipfs.content.mfs import MfsPath, MutableFiles
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025, Profile, profile_named
from mlflow_ipfs.content.storage.base import Changes

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.car.format import CarPart
    from mlflow_ipfs.content.car.resuming import ExportedCar
    from mlflow_ipfs.content.checking.verify import VerifyReport
    from mlflow_ipfs.content.files.chunker import Chunker
    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.names.pins import Pins
    from mlflow_ipfs.content.names.refs import Refs
    from mlflow_ipfs.content.storage.base import Publication, Storage
    from mlflow_ipfs.content.storage.maintenance import AffectedReport, GCReport, ScrubReport, UsageReport

_logger = logging.getLogger(__name__)


class ContentStore:
    """Store of content by CID. A context manager; may be shared between threads.

    Every byte that is returned was verified against its CID. A block is verified when it is read, and a file that the
    storage keeps contiguous when it is stored and after each change of its inode, size or modification time. A CID
    argument may be text. A ``path`` argument is ``a/b/c`` below the CID.

    Args:
        storage: stores the blocks, pins, refs and entries; closed together with the store.
        remote: source of blocks that the storage does not have; None to read local blocks only. Fetched blocks are
            stored in the cache of the storage. ``pin``, freezing, gc and backups use local content only, and never
            read from this source.
        profile: default import profile.
        chunker: default chunker; None for the profile's fixed chunk size.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        remote: BlockReader | None = None,
        profile: Profile = UNIXFS_V1_2025,
        chunker: Chunker | None = None,
    ) -> None:
        self.storage = storage
        self._remote = (
            ReadThroughReader(storage.blocks, remote, partial(storage.publish, in_cache=True)) if remote else None
        )
        self._options = ImportOptions(profile=profile, chunker=chunker)
        self.files = MutableFiles(storage, self._options)
        """The mutable trees, ``mfs://``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Store fetched blocks in the cache, and close the storage. A second call is a no-op."""
        self._flush()
        self.storage.close()

    @property
    def blocks(self) -> BlockReader:
        """The readable blocks: those of the storage and of the remote source."""
        return self._remote or self.storage.blocks

    def _flush(self) -> None:
        """Store fetched blocks in the cache, where ``pin`` finds them."""
        if self._remote is not None:
            self._remote.flush()

    @property
    def pins(self) -> Pins:
        """The pins: which content is kept, and for which owner."""
        return self.storage.pins

    @property
    def refs(self) -> Refs:
        """The refs: mutable names of CIDs."""
        return self.storage.refs

    def add(  # noqa: PLR0913 - each is one independent choice, named at the call
        self,
        path: str | os.PathLike[str],
        *,
        profile: str | Profile | None = None,
        chunker: Chunker | None = None,
        only_hash: bool = False,
        hidden: bool = True,
        wrap: bool = False,
        preserve_mode: bool = False,
        preserve_mtime: bool = False,
        pin: str | None = USER,
        progress: Callable[[int], None] | None = None,
    ) -> Added:
        """Add a file, symlink or directory, durably.

        Args:
            path: the path to add; symlinks are not followed.
            profile: import profile or its name; None for the store's.
            chunker: decides where files are split; None for the store's chunker, or for the profile's if one is given.
            only_hash: compute the CID and store nothing.
            hidden: include names that start with a dot.
            wrap: add a directory around the content, which records the name.
            preserve_mode: record permission bits (changes the CID).
            preserve_mtime: record modification times (changes the CID).
            pin: owner of the pin to add; None for no pin, so that the next gc may delete the content.
            progress: called with the number of bytes just read.

        Raises:
            NotFoundError: the path does not exist.
            SourceChangedError: a file changed while it was read; nothing was added.
            StoreFullError, StoreBusyError: nothing was added.
        """
        options = ImportOptions(
            profile=self._profile(profile),
            chunker=chunker or (None if profile else self._options.chunker),
            include_hidden=hidden,
            preserve_mode=preserve_mode,
            preserve_mtime=preserve_mtime,
        )
        with self._publication(only_hash=only_hash) as publication:
            with Importer(publication, options, progress=progress) as importer:
                imported = importer.import_path(path, wrap=wrap)
            added = self._commit(publication, imported, pin)
        return replace(added, hidden_left_out=importer.hidden_left_out)

    def add_stream(
        self, stream: BinaryIO, *, chunker: Chunker | None = None, only_hash: bool = False, pin: str | None = USER
    ) -> Added:
        """Add the rest of a stream as one file, durably, with the same CID as ``add`` of a file with these bytes.

        The stream is read once. The arguments and the errors are those of ``add``.
        """
        with self._publication(only_hash=only_hash) as publication:
            with Importer(publication, self._options.with_chunker(chunker)) as importer:
                imported = importer.import_stream(stream)
            return self._commit(publication, imported, pin)

    def add_bytes(self, data: bytes, *, pin: str | None = USER) -> CID:
        """Add bytes as one file, durably."""
        return self.add_stream(io.BytesIO(data), pin=pin).cid

    def wrap(self, cid: CID | str, name: str, *, pin: str | None = USER) -> CID:
        """Return the CID of a new directory that contains the content under a name.

        Raises:
            InvalidPathError: the name is not a valid file name.
        """
        with self.storage.publish(hold_existing=True) as publication:
            node = read_unixfs(self.storage.blocks, _cid(cid))
            nodes = NodeBuilder(publication.put, self._options.profile)
            link = nodes.build_directory([Link(node.cid, encode_file_name(name), node.dag_bytes)])
            publication.commit(Changes(pins=[Pin(pin, link.cid)] if pin else []))
        return link.cid

    def _publication(self, *, only_hash: bool) -> Publication:
        return HashOnlyPublication() if only_hash else self.storage.publish()

    def _profile(self, profile: str | Profile | None) -> Profile:
        return profile_named(profile) if isinstance(profile, str) else profile or self._options.profile

    @staticmethod
    def _commit(publication: Publication, imported: Imported, pin: str | None) -> Added:
        link = imported.link
        new_bytes = publication.commit(Changes(pins=[Pin(pin, link.cid)] if pin else []))
        _logger.debug("%s: %d bytes in files, %d bytes new in the store", link.cid, imported.size_bytes, new_bytes)
        return Added(link.cid, imported.size_bytes, link.size_bytes or 0, new_bytes)

    def resolve(self, cid: CID | str, path: str = "") -> CID:
        """Return the CID at a path. Symlinks are not followed.

        Raises:
            NotFoundError, NotDirectoryError: the path does not exist.
        """
        return resolve(self.blocks, _cid(cid), path)

    def has(self, cid: CID | str) -> bool:
        """Return whether the block of a CID can be read. Blocks that it links to may be missing."""
        return self.blocks.has(_cid(cid))

    def dag_size(self, cid: CID | str) -> int:
        """Return the size in bytes of a node and all blocks below it, as the node states it."""
        return read_unixfs(self.blocks, _cid(cid)).dag_bytes

    def stat(self, cid: CID | str, path: str = "") -> Entry:
        """Return the entry at a path."""
        return describe_node(path.rstrip("/").rpartition("/")[2], self._node(cid, path))

    def ls(self, cid: CID | str, path: str = "") -> list[Entry]:
        """Return the entries of a directory, ordered by the bytes of their names.

        Raises:
            NotDirectoryError: the path is a file.
        """
        return list_entries(self.blocks, self._node(cid, path))

    def open(self, cid: CID | str, path: str = "") -> BinaryIO:
        """Return a seekable file object. Each block is verified before its bytes are returned.

        Raises:
            IsDirectoryError: the path is a directory.
            NotFoundError, IntegrityError: a block is missing or damaged; also raised while reading.
        """
        return cast("BinaryIO", open_unixfs(self.blocks, self.resolve(cid, path)))

    def local_path(self, cid: CID | str, path: str = "") -> Path | None:
        """Return the path of a file on disk with the content, to read without copying. Never write to that file.

        A large file that the store keeps in pieces is assembled first. The path is valid until this store is closed, or
        until the content is deleted.

        Returns:
            The path, or None for directories and small files.

        Raises:
            IntegrityError: the file on disk is damaged; it was moved to quarantine.
        """
        return self.storage.ensure_file(self.resolve(cid, path))

    def view(
        self,
        cid: CID | str,
        path: str = "",
        *,
        dst: str | os.PathLike[str] | None = None,
        allow_outside_links: bool = False,
        verify: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Path:
        """Write content to disk, and return the path. The caller may change the files without changing the store.

        Args:
            cid: root of the content.
            path: path below the root.
            dst: path to write to; the bytes are copied. None for a private temporary directory, which is removed when
                this process ends, and whose files share bytes with the store where that is safe.
            allow_outside_links: also restore symlinks that point out of the content.
            verify: hash each block while it is written, even in files whose status is unchanged. No bytes are shared.
            progress: called with the number of bytes just written.
        """
        found = self.resolve(cid, path)
        name = path.rstrip("/").rpartition("/")[2] or str(found)
        target = Path(dst) if dst is not None else self.storage.make_view_directory() / name
        exporter = Exporter(
            self.blocks,
            linker=None if verify else self.storage,
            share=dst is None,
            allow_outside_links=allow_outside_links,
            progress=progress,
        )
        exporter.export(found, target)
        return target

    def verify(
        self,
        cid: CID | str,
        *,
        against: str | os.PathLike[str] | None = None,
        hidden: bool = True,
        not_content: Collection[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> VerifyReport:
        """Read and hash every block, even in files whose status is unchanged. Optionally compare with a path on disk.

        Damage does not raise: the report names each damaged block.

        Args:
            cid: root of the content.
            against: a file or directory on disk that must equal the content.
            hidden: whether additional names below ``against`` that start with a dot are a difference; as for ``add``.
            not_content: additional paths below ``against`` that are not a difference.
            progress: called with the number of bytes just hashed.
        """
        root = _cid(cid)
        report = verify_dag(self.blocks, root, progress=progress)
        if against is not None:
            found = compare_with_disk(
                self.blocks, root, Path(against), hidden=hidden, not_content=frozenset(not_content)
            )
            report.problems += found.problems
            report.hidden_left_out = found.hidden_left_out
        return report

    def pin(self, cid: CID | str, owner: str = USER) -> None:
        """Pin content for an owner, after a check that all its blocks are in the storage.

        Raises:
            NotFoundError: a block is missing.
        """
        root = _cid(cid)
        self._flush()
        with self.storage.publish(hold_existing=True) as publication:  # gc deletes no block that the check found
            check_complete(self.storage.blocks, root)
            publication.commit(Changes(pins=[Pin(owner, root)]))

    def pin_files(self, location: MfsPath, owner: str = USER) -> CID:
        """Pin the current content of a file or directory of a mutable tree, and return its CID.

        Raises:
            NotFoundError: the path does not exist, or a block is missing.
        """
        with self.storage.publish(hold_existing=True):  # keeps the nodes of the directories until they are pinned
            cid = self.files.snapshot(location).cid
            self.pin(cid, owner)
        return cid

    def export_car(
        self, cid: CID | str, file: BinaryIO, *, skip_bytes: int = 0, progress: Callable[[int], None] | None = None
    ) -> int:
        """Write everything below a CID as a CARv1, and return its size in bytes. See ``exporting.export_car``."""
        return exporting.export_car(self.blocks, _cid(cid), file, skip_bytes=skip_bytes, progress=progress)

    def export_car_file(
        self,
        cid: CID | str,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ExportedCar:
        """Write a CARv1 to a file, and resume an interrupted export. See ``resuming.export_car_file``."""
        return export_car_file(self.blocks, _cid(cid), Path(path), overwrite=overwrite, progress=progress)

    def import_car(
        self,
        file: BinaryIO,
        *,
        part: CarPart | None = None,
        pin: str | None = USER,
        all_blocks: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[CID]:
        """Import a CAR of any size, or the rest of one, pin its roots once they are complete, and return the roots.

        Blocks that no root needs are left out, unless ``all_blocks`` is true or the CAR names no root. On an error, the
        valid blocks before it are kept, nothing is pinned, and the message says how to resume. See ``CarImport``, which
        also imports several CARs at once.

        Raises:
            InvalidDataError, IntegrityError: the CAR is malformed or truncated, or a block does not match its CID.
            NotFoundError: a block below a root is neither in the CAR nor in the store.
            StoreFullError, StoreBusyError: the last step, at most 240 MiB, was not stored.
        """
        with self.begin_car_import(all_blocks=all_blocks, progress=progress) as transfer:
            transfer.take(file, part)
            return transfer.finish(pin)

    def begin_car_import(self, *, all_blocks: bool = False, progress: Callable[[int], None] | None = None) -> CarImport:
        """Return a context manager for the import of several CARs. See ``CarImport``."""
        return CarImport(self.storage, all_blocks=all_blocks, progress=progress)

    def heal_from(self, source: BlockReader | None) -> None:
        """Replace damaged blocks, when they are read, by verified blocks of another reader. None ends this."""
        self.storage.heal_from(source)

    def roots(self) -> Iterator[Root]:
        """Yield each name that retains content. Files of ``mfs://`` are grouped by directory."""
        return self.storage.roots()

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Return the size of everything below each group of roots. Each block counts once."""
        return self.storage.measure_usage(groups)

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Read and hash everything in the store, even files whose status is unchanged."""
        return self.storage.scrub(progress)

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Return the pins, refs, ``mfs://`` files and frozen paths that need blocks which ``scrub`` found damaged."""
        return self.storage.find_affected(damaged)

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Delete content that no name has needed for ``grace_seconds``. With ``dry_run``, only report it."""
        return self.storage.collect_garbage(dry_run=dry_run, grace_seconds=grace_seconds)

    def _node(self, cid: CID | str, path: str) -> UnixFSNode:
        return read_unixfs(self.blocks, self.resolve(cid, path))


def _cid(cid: CID | str) -> CID:
    return CID.parse(cid) if isinstance(cid, str) else cid
