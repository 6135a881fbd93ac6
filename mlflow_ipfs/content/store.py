"""ContentStore: one store as its users see it, files and directories in, CIDs out, and back."""

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
    """Content by CID. A context manager; may be shared between threads.

    Every byte that comes out has been checked against its CID: now, or, in files that the storage keeps whole, when
    they were kept or last changed. Where a method takes a CID, its text does as well; a ``path`` is ``a/b/c`` below it.

    Args:
        storage: keeps the blocks, pins, refs and entries; closed with the store.
        remote: where to read blocks that the storage does not have; None to read local blocks only. What was read is
            stored in the cache of the storage. What is *kept* is decided by local content alone: ``pin``, freezing,
            gc and backups never read from it.
        profile: how files become DAGs unless a call says otherwise.
        chunker: where files are cut; None for the profile's fixed size.
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
        """Store what was fetched, and release the storage. A second call is a no-op."""
        self._flush()
        self.storage.close()

    @property
    def blocks(self) -> BlockReader:
        """The blocks that can be read: local ones, and those of the remote source."""
        return self._remote or self.storage.blocks

    def _flush(self) -> None:
        """Store fetched blocks in the cache, where pinning finds them."""
        if self._remote is not None:
            self._remote.flush()

    @property
    def pins(self) -> Pins:
        """What is kept, and for whom."""
        return self.storage.pins

    @property
    def refs(self) -> Refs:
        """Mutable names for CIDs."""
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
            path: what to add; a symlink is added as itself.
            profile: import profile or its name; default the store's.
            chunker: where to cut; default the store's, or the profile's if one is given.
            only_hash: compute the CID and keep nothing.
            hidden: include names that start with a dot.
            wrap: add a directory around it, so that the name is kept.
            preserve_mode: record permission bits (changes the CID).
            preserve_mtime: record modification times (changes the CID).
            pin: owner of the pin that keeps it; None adds no pin, so that the next gc may drop it.
            progress: called with the number of bytes just read.

        Raises:
            NotFoundError: nothing is at the path.
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
        """Add what is left of a stream as one file, durably. It gets the CID that ``add`` gives to a file of these bytes.

        Args:
            stream: read once, to its end.
            chunker: where to cut; default the store's.
            only_hash: compute the CID and keep nothing.
            pin: owner of the pin that keeps it; None adds no pin, so that the next gc may drop it.

        Raises:
            StoreFullError, StoreBusyError: nothing was added.
        """
        with self._publication(only_hash=only_hash) as publication:
            with Importer(publication, self._options.with_chunker(chunker)) as importer:
                imported = importer.import_stream(stream)
            return self._commit(publication, imported, pin)

    def add_bytes(self, data: bytes, *, pin: str | None = USER) -> CID:
        """Add bytes as one file, durably."""
        return self.add_stream(io.BytesIO(data), pin=pin).cid

    def wrap(self, cid: CID | str, name: str, *, pin: str | None = USER) -> CID:
        """Put content into a new directory under a name: ``<wrapper>/<name>`` is the content.

        Raises:
            InvalidPathError: the name could not be a file name.
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
        """Follow a path; symlinks are not followed.

        Raises:
            NotFoundError, NotDirectoryError: the path leads nowhere.
        """
        return resolve(self.blocks, _cid(cid), path)

    def has(self, cid: CID | str) -> bool:
        """Return whether the block of a CID can be read; what it links to may be missing."""
        return self.blocks.has(_cid(cid))

    def dag_size(self, cid: CID | str) -> int:
        """Return the size in bytes of all blocks below a CID, as its node states it."""
        return read_unixfs(self.blocks, _cid(cid)).dag_bytes

    def stat(self, cid: CID | str, path: str = "") -> Entry:
        """What is at a path."""
        return describe_node(path.rstrip("/").rpartition("/")[2], self._node(cid, path))

    def ls(self, cid: CID | str, path: str = "") -> list[Entry]:
        """The entries of a directory, by name in byte order.

        Raises:
            NotDirectoryError: it is a file.
        """
        return list_entries(self.blocks, self._node(cid, path))

    def open(self, cid: CID | str, path: str = "") -> BinaryIO:
        """Open a file for seekable reading; every block is verified before its bytes come out.

        Raises:
            IsDirectoryError: it is a directory.
            NotFoundError, IntegrityError: here, or while reading.
        """
        return cast("BinaryIO", open_unixfs(self.blocks, self.resolve(cid, path)))

    def local_path(self, cid: CID | str, path: str = "", *, wait: bool = True) -> Path | None:
        """A file on disk that is the content, to read without copying; never write to it.

        A large file that the store keeps in pieces is put together first. The path is good until this
        store is closed, or until the content is dropped.

        Args:
            cid: root of the content.
            path: where below the root.
            wait: False for an event loop: nothing is put together or hashed, and damage is not looked for.

        Returns:
            None where there is no such file: directories, small files; without ``wait`` also a file that has to be put
            together or hashed first.

        Raises:
            IntegrityError: the file on disk has changed; it has been set aside.
        """
        found = self.resolve(cid, path)
        return self.storage.ensure_file(found) if wait else self.storage.ready_file(found)

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
        """Lay content out as files that may be written to without touching the store.

        Args:
            cid: root of the content.
            path: where below the root.
            dst: where to write, and where the bytes are always copies; None for a private place
                that shares bytes where that is safe and is removed when this process ends.
            allow_outside_links: restore symlinks that point out of the content, too.
            verify: hash every block while it is written, whatever stamps say; no bytes are shared then.
            progress: called with the number of bytes just written.

        Returns:
            The path of the file or directory.
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
        """Read and hash every block, whatever stamps say; and compare with a file or directory on disk.

        Nothing is raised for damage: the report names each block.

        Args:
            cid: root of the content.
            against: a file or directory that must be the same.
            hidden: whether names in it that start with a dot, and that the content lacks, are a difference; as ``add``'s.
            not_content: paths below ``against`` that may be there beside the content.
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
        """Keep content, after making sure that all of it is here.

        Raises:
            NotFoundError: a block is missing.
        """
        root = _cid(cid)
        self._flush()
        with self.storage.publish(hold_existing=True) as publication:  # what was found complete stays so
            check_complete(self.storage.blocks, root)
            publication.commit(Changes(pins=[Pin(owner, root)]))

    def pin_files(self, location: MfsPath, owner: str = USER) -> CID:
        """Keep a file or directory of a mutable tree as it is at this moment. Returns its CID.

        Raises:
            NotFoundError: nothing is there, or a block is missing.
        """
        with self.storage.publish(hold_existing=True):  # the directories' nodes stay until they are pinned
            cid = self.files.snapshot(location).cid
            self.pin(cid, owner)
        return cid

    def export_car(
        self, cid: CID | str, file: BinaryIO, *, skip_bytes: int = 0, progress: Callable[[int], None] | None = None
    ) -> int:
        """Write everything below a CID as a CARv1, but for its first bytes. Returns the size of the whole CAR in bytes.

        See ``exporting.export_car``.
        """
        return exporting.export_car(self.blocks, _cid(cid), file, skip_bytes=skip_bytes, progress=progress)

    def export_car_file(
        self,
        cid: CID | str,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> ExportedCar:
        """As ``export_car``, to a file: goes on where an export that was cut short ended. See ``car_drafts``."""
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
        """Take in a CAR of any size, or the rest of one, and pin its roots once they are complete. Returns the roots.

        Blocks that no root needs are left out, unless ``all_blocks`` is true or the CAR names no root.
        Whatever goes wrong, the whole and right blocks before the fault are kept, and the message says how to go on;
        nothing is pinned then. See ``CarImport``, which also takes several CARs at once.

        Raises:
            InvalidDataError, IntegrityError: the CAR is malformed or ends early, or a block is wrong.
            NotFoundError: a block below a root is neither in the CAR nor in the store.
            StoreFullError, StoreBusyError: the last step, at most 240 MiB, was not kept.
        """
        with CarImport(self.storage, all_blocks=all_blocks, progress=progress) as transfer:
            transfer.take(file, part)
            return transfer.finish(pin)

    def begin_car_import(self, *, all_blocks: bool = False, progress: Callable[[int], None] | None = None) -> CarImport:
        """Start an import of several CARs, a context manager. See ``CarImport``."""
        return CarImport(self.storage, all_blocks=all_blocks, progress=progress)

    def heal_from(self, source: BlockReader | None) -> None:
        """Replace blocks that turn out to be damaged by those of another reader, verified; None ends this."""
        self.storage.heal_from(source)

    def roots(self) -> Iterator[Root]:
        """Yield every name that retains content; files of ``mfs://`` by directory."""
        return self.storage.roots()

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Add up what lies below each group of roots, each block once."""
        return self.storage.measure_usage(groups)

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Read and hash everything in the store, whatever its stamps say."""
        return self.storage.scrub(progress)

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Find the pins, refs, ``mfs://`` files and frozen paths that need what ``scrub`` found damaged."""
        return self.storage.find_affected(damaged)

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Drop what no pin, ref, entry or frozen path has needed for some time; or only say what would be dropped."""
        return self.storage.collect_garbage(dry_run=dry_run, grace_seconds=grace_seconds)

    def _node(self, cid: CID | str, path: str) -> UnixFSNode:
        return read_unixfs(self.blocks, self.resolve(cid, path))


def _cid(cid: CID | str) -> CID:
    return CID.parse(cid) if isinstance(cid, str) else cid
