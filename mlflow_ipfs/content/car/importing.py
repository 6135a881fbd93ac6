"""Import of CARs of any size into a storage.

An import is done in steps, so that its memory is bounded and an interrupted import can be resumed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Self

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.car.format import CarReader
from mlflow_ipfs.content.car.import_steps import ImportSteps
from mlflow_ipfs.content.car.undecided_blocks import UndecidedBlocks
from mlflow_ipfs.content.checking.completeness import find_missing, missing_block
from mlflow_ipfs.content.codecs.links import LEAF_CODECS, links
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from mlflow_ipfs.content.car.format import CarPart
    from mlflow_ipfs.content.car.undecided_blocks import CarFile
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.base import Storage


class CarImport:
    """Import of one or more CARs, whole or in parts. A context manager.

    Only blocks that the roots need are kept. They are made durable in steps, without a pin. A hold protects them until
    the pins are set. Thus an interrupted stream, a bad block or a full disk loses at most one step, and gc can delete
    other content while a stream stalls.

    A block that arrives before every node that links to it is undecided: it is kept outside of the storage until
    ``finish`` stores or drops it. If the import fails, undecided blocks are stored, because the rest of the CAR may
    need them.

    Args:
        storage: storage that the blocks are written to.
        all_blocks: whether to keep every block, needed or not. All blocks of a CAR without roots are always kept.
        progress: called with the length of each block in bytes.

    Attributes:
        all_blocks: as given.
        roots: roots of the CARs, without duplicates.
        resume_from: offset of the first frame that is not kept, in bytes from the start of the CAR read last.
        payload_end: if the CAR read last is a CARv2, the end of its payload, as in ``CarPart.end``.
        left_out_blocks: after ``finish``, the number of blocks that were not kept because no root needs them.
        left_out_bytes: their total size in bytes.
    """

    def __init__(
        self, storage: Storage, *, all_blocks: bool = False, progress: Callable[[int], None] | None = None
    ) -> None:
        self._storage = storage
        self.all_blocks = all_blocks
        self._progress = progress or (lambda _: None)
        self.roots: list[CID] = []
        self.resume_from = 0
        self.payload_end: int | None = None
        self.left_out_blocks = 0
        self.left_out_bytes = 0
        self._hold = storage.hold()
        self._steps = ImportSteps(storage, self._hold, self._record_step)
        self._undecided = UndecidedBlocks(storage.make_view_directory)
        self._needed = SeenBlocks()
        self._position = 0  # end of the last frame that was processed
        self._first_undecided: int | None = None
        self._cleanup = ExitStack()
        self._cleanup.push(self._hold)
        self._cleanup.callback(self._undecided.close)
        self._cleanup.callback(self._steps.discard)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    @property
    def kept_blocks(self) -> int:
        """Number of blocks that were verified and are kept, including blocks that were already stored."""
        return self._steps.blocks

    @property
    def kept_bytes(self) -> int:
        """Total size in bytes of the blocks that are kept."""
        return self._steps.size_bytes

    def take(self, file: BinaryIO, part: CarPart | None = None) -> None:
        """Import a CAR, or the rest of one.

        All valid blocks before the first fault are kept. The error message states how many, and the byte from which
        the import can be resumed. An error of the stream itself gets the same text with ``add_note``.

        Args:
            file: stream of the CAR.
            part: position of the stream in the CAR, if it contains only the rest of a CAR.

        Raises:
            InvalidDataError, IntegrityError: the CAR is malformed or ends early, a block is damaged, or too many
                blocks arrived before the nodes that need them.
            StoreFullError, StoreBusyError: the last step was not kept.
        """
        self.resume_from, self.payload_end, self._first_undecided = 0, None, None
        source = self._undecided.open_source(file, part.start if part else 0)
        reader = CarReader(file, part)
        self.resume_from = self._position = reader.frame_offset
        self.payload_end = reader.payload_end
        new_roots = [root for root in dict.fromkeys(reader.roots) if root not in self.roots]
        self.roots += new_roots
        try:
            if reader.roots and not self.all_blocks:
                self._find_needed(new_roots)
                self._process_frames(reader, part, lambda cid, block: self._put_or_defer(cid, block, source))
            else:
                self._process_frames(reader, part, self._put_any)
        except MlflowIpfsError as error:
            self._keep_rest()
            raise self._explain(error) from error
        except BaseException as error:  # a stream can raise anything
            self._keep_rest()
            error.add_note(self.kept())
            raise

    def _process_frames(self, reader: CarReader, part: CarPart | None, process: Callable[[CID, bytes], None]) -> None:
        with self._steps.ending_in_time():
            blocks = _read_blocks(reader, part)
            while (cid_and_block := self._steps.wait_for(blocks)) is not None:
                process(*cid_and_block)
                self._position = reader.frame_offset
                self._progress(len(cid_and_block[1]))
            self._steps.commit()

    def _put_any(self, cid: CID, block: bytes) -> None:
        self._hold.add(cid)
        self._steps.put(cid, block)

    def _put_or_defer(self, cid: CID, block: bytes, source: CarFile | None) -> None:
        """Store a block that is needed. Add any other block to the undecided blocks."""
        if cid in self._needed:
            self._steps.put(cid, block)
            if self._undecided.count:
                self._undecided.drop(cid)  # an earlier occurrence of the same block may be undecided
            self._need_links(cid, block)
            return
        if self._first_undecided is None:
            self._first_undecided = self._position
        self._undecided.add(cid, block, source.locate(self._position) if source else None)

    def _record_step(self) -> None:
        self.resume_from = self._position

    def _find_needed(self, roots: Sequence[CID]) -> None:
        """Record the blocks that the roots need, as far as their nodes are stored by an earlier, partial import."""
        with self._storage.publish(hold_existing=True):
            stack = [root for root in roots if self._need(root)]
            while stack:
                cid = stack.pop()
                stack += [link for link in self._links_of_stored(cid) if self._need(link)]
            self._hold.flush()

    def _need(self, cid: CID) -> bool:
        """Record that a block is needed. Return whether this is new and the block may link to other blocks."""
        is_new = self._needed.add(cid)
        if is_new:
            self._hold.add(cid)
        return is_new and cid.codec not in LEAF_CODECS

    def _links_of_stored(self, cid: CID) -> Sequence[CID]:
        """Return the links of a stored node, or nothing if it is missing or damaged, which ``finish`` reports."""
        blocks = self._storage.blocks
        try:
            return links(cid, blocks.get(cid)) if blocks.has(cid) else ()
        except MlflowIpfsError:
            return ()

    def _need_links(self, cid: CID, block: bytes) -> None:
        """Record the links of a block as needed, and recursively those of linked nodes with identity CIDs."""
        if cid.codec in LEAF_CODECS:
            return
        try:
            below = links(cid, block)
        except InvalidDataError:
            return  # ``finish`` reports the error
        for link in below:
            if self._needed.add(link):
                self._hold.add(link)
                identity_block = link.identity_data
                if identity_block is not None:
                    self._need_links(link, identity_block)

    def finish(self, pin: str | None, name: str = "") -> list[CID]:
        """Check that every root is complete, then pin all of them in one transaction. Return the roots.

        Args:
            pin: owner of the pins, or None to set no pins.
            name: a name for users, which the pins remember.

        Raises:
            NotFoundError: a block below a root is neither in the CARs nor in the store; nothing was pinned.
            InvalidDataError, IntegrityError: a block below a root is malformed, damaged or of an unknown codec; nothing
                was pinned.
            StoreFullError, StoreBusyError: nothing was pinned.
        """
        try:
            # The outer publication prevents gc from deleting checked blocks before the pins are set.
            with self._storage.publish(hold_existing=True) as publication:
                self._complete()
                publication.commit(Changes.pinning(pin, self.roots, name))
        except MlflowIpfsError as error:
            self._keep_rest()
            raise self._explain(error) from error
        self.left_out_blocks, self.left_out_bytes = self._undecided.count, self._undecided.size_bytes
        self._undecided.close()
        return self.roots

    def _complete(self) -> None:
        """Store the undecided blocks that are needed, then check that all roots are complete."""
        while True:
            if self._undecided.count:
                self._put_undecided()
            missing, root = self._find_missing()
            if missing is None or root is None:
                return
            if missing not in self._undecided:
                raise missing_block(root, missing)

    def _find_missing(self) -> tuple[CID, CID] | tuple[None, None]:
        """Return a missing block and the root that needs it, or ``(None, None)``."""
        seen = SeenBlocks()
        for root in self.roots:
            missing = find_missing(self._storage.blocks, root, seen=seen)
            if missing is not None:
                return missing, root
        return None, None

    def _put_undecided(self) -> None:
        """Store the undecided blocks that the roots need, parents first."""
        seen, stack = SeenBlocks(), list(reversed(self.roots))
        while stack:
            cid = stack.pop()
            if not seen.add(cid):
                continue
            below: Sequence[CID] = ()
            if cid in self._undecided:
                block = self._undecided.take(cid)
                self._steps.put(cid, block)
                below = links(cid, block)
            elif cid.codec not in LEAF_CODECS:
                below = self._links_of_stored(cid)
            stack.extend(reversed(below))
        self._steps.commit()

    def _keep_rest(self) -> None:
        """Store the open step and the undecided blocks after a fault: the rest of the CAR may need them."""
        try:
            self._steps.commit()
            for cid, block in self._undecided:
                self._steps.put(cid, block)
            self._steps.commit()
            self._undecided.close()
        except MlflowIpfsError:
            if self._first_undecided is not None:
                self.resume_from = min(self.resume_from, self._first_undecided)

    def kept(self) -> str:
        """Return sentences that describe what is kept, for use in messages."""
        if not self.kept_blocks:
            return "No blocks were kept"
        blocks = f"{self.kept_blocks:,} block{'s' * (self.kept_blocks != 1)}"
        return (
            f"Kept {blocks} ({self.kept_bytes:,} bytes): everything before byte {self.resume_from} of the CAR, where "
            "the next block begins. Nothing is pinned, so gc may delete them after its grace period. "
            "Import the CAR again to resume: only missing blocks are written"
        )

    def _explain(self, error: MlflowIpfsError) -> MlflowIpfsError:
        return type(error)(f"{error}. {self.kept()}")


def _read_blocks(reader: CarReader, part: CarPart | None) -> Iterator[tuple[CID, bytes]]:
    """Yield the blocks of a CAR.

    If the first frame in the rest of a CAR is invalid, the error message suggests a wrong offset, which is a more
    likely cause than damage.
    """
    try:
        yield from reader
    except (InvalidDataError, IntegrityError) as error:
        if part is None or reader.frame_offset > part.start:
            raise
        msg = f"{error}; check whether the stream really begins at byte {part.start} of the CAR"
        raise type(error)(msg) from error
