"""CARs into a storage, of any size: in steps, so that memory is bounded and what breaks off can go on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Self

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.car.format import CarReader
from mlflow_ipfs.content.car.import_steps import ImportSteps
from mlflow_ipfs.content.car.undecided_blocks import UndecidedBlocks
from mlflow_ipfs.content.checking.completeness import find_missing, missing_block
from mlflow_ipfs.content.codecs.links import LEAF_CODECS, links
from mlflow_ipfs.content.names.pins import Pin
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
    """The import of one or more CARs, whole or in parts. A context manager.

    Only blocks that the roots need are kept. They are made durable in steps, without a name, and a hold protects them
    until the pins are there: so a stream that breaks off, a bad block or a full disk costs at most one step, and while
    a stream stalls, gc can delete everything else. A block that comes before every node that links to it waits outside
    of the storage; ``finish`` takes it in or leaves it out. If the import fails, it is kept: the rest may need it.

    Args:
        storage: takes the blocks.
        all_blocks: keep every block, needed or not. That is also done with a CAR that names no root.
        progress: called with the length of each block.

    Attributes:
        all_blocks: as given.
        roots: the roots that the CARs name, each once.
        resume_from: where the first frame begins, in bytes from the start of the CAR read last, that is not kept.
        payload_end: where the payload of that CAR ends if it is a CARv2, as ``CarPart.end``.
        left_out_blocks: after ``finish``, how many blocks no root needs, so that they were not kept.
        left_out_bytes: and how many bytes they have.
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
        self._steps = ImportSteps(storage, self._hold, self._note_step)
        self._undecided = UndecidedBlocks(storage.make_view_directory)
        self._needed = SeenBlocks()
        self._position = 0  # where the frame ends that was dealt with last
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
        """How many blocks were verified and are kept, those that were here before among them."""
        return self._steps.blocks

    @property
    def kept_bytes(self) -> int:
        """And how many bytes they have."""
        return self._steps.size_bytes

    def take(self, file: BinaryIO, part: CarPart | None = None) -> None:
        """Take in a CAR, or the rest of one.

        What is whole and right before the first fault is kept; the message says how much, and where to go on. That is
        true of an error of the stream itself, too: it gets a note.

        Raises:
            InvalidDataError, IntegrityError: the CAR is malformed or ends early, or a block is wrong; or too many blocks
                came before the nodes that need them.
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
                self._take_frames(reader, part, lambda cid, block: self._sort_in(cid, block, source))
            else:
                self._take_frames(reader, part, self._put_any)
        except MlflowIpfsError as error:
            self._keep_rest()
            raise self._explain(error) from error
        except BaseException as error:  # any stream breaks off in its own way
            self._keep_rest()
            error.add_note(self.kept())
            raise

    def _take_frames(self, reader: CarReader, part: CarPart | None, deal_with: Callable[[CID, bytes], None]) -> None:
        with self._steps.ending_in_time():
            blocks = _read_blocks(reader, part)
            while (found := self._steps.wait_for(blocks)) is not None:
                deal_with(*found)
                self._position = reader.frame_offset
                self._progress(len(found[1]))
            self._steps.commit()

    def _put_any(self, cid: CID, block: bytes) -> None:
        self._hold.add(cid)
        self._steps.put(cid, block)

    def _sort_in(self, cid: CID, block: bytes, source: CarFile | None) -> None:
        """Put a block that is needed; let another one wait."""
        if cid in self._needed:
            self._steps.put(cid, block)
            if self._undecided.count:
                self._undecided.drop(cid)  # it came before, too
            self._need_links(cid, block)
            return
        if self._first_undecided is None:
            self._first_undecided = self._position
        self._undecided.add(cid, block, source.place_of(self._position) if source else None)

    def _note_step(self) -> None:
        self.resume_from = self._position

    def _find_needed(self, roots: Sequence[CID]) -> None:
        """Note what the roots need, as far as their nodes are here: of a partial import that goes on."""
        with self._storage.publish(hold_existing=True):
            stack = [root for root in roots if self._need(root)]
            while stack:
                cid = stack.pop()
                stack += [link for link in self._links_of_stored(cid) if self._need(link)]
            self._hold.flush()

    def _need(self, cid: CID) -> bool:
        """Note that a block is needed. Returns whether it may need others, and was not noted before."""
        is_new = self._needed.add(cid)
        if is_new:
            self._hold.add(cid)
        return is_new and cid.codec not in LEAF_CODECS

    def _links_of_stored(self, cid: CID) -> Sequence[CID]:
        """What a node links to; nothing if it is not here, or not sound, which ``finish`` will say."""
        blocks = self._storage.blocks
        try:
            return links(cid, blocks.get(cid)) if blocks.has(cid) else ()
        except MlflowIpfsError:
            return ()

    def _need_links(self, cid: CID, block: bytes) -> None:
        """Note what a block links to, and what those need that are inside of their CIDs."""
        if cid.codec in LEAF_CODECS:
            return
        try:
            below = links(cid, block)
        except InvalidDataError:
            return  # ``finish`` says so
        for link in below:
            if self._needed.add(link):
                self._hold.add(link)
                inside = link.identity_data
                if inside is not None:
                    self._need_links(link, inside)

    def finish(self, pin: str | None) -> list[CID]:
        """Check that every root is complete, then pin them all in one step. Returns the roots.

        Args:
            pin: owner of the pins; None for none.

        Raises:
            NotFoundError: a block below a root is neither in the CARs nor in the store; nothing was pinned.
            InvalidDataError, IntegrityError: a block below a root is malformed, damaged or of an unknown codec; nothing
                was pinned.
            StoreFullError, StoreBusyError: nothing was pinned.
        """
        try:
            with self._storage.publish(
                hold_existing=True
            ) as around:  # until the pins are there, no gc may come between
                self._complete()
                around.commit(Changes(pins=[Pin(pin, root) for root in self.roots] if pin else []))
        except MlflowIpfsError as error:
            self._keep_rest()
            raise self._explain(error) from error
        self.left_out_blocks, self.left_out_bytes = self._undecided.count, self._undecided.size_bytes
        self._undecided.close()
        return self.roots

    def _complete(self) -> None:
        """Take in what is needed of the undecided blocks, and check that nothing is missing then."""
        while True:
            if self._undecided.count:
                self._take_undecided()
            missing, root = self._find_missing()
            if missing is None or root is None:
                return
            if missing not in self._undecided:
                raise missing_block(root, missing)

    def _find_missing(self) -> tuple[CID, CID] | tuple[None, None]:
        """A block that is missing, and the root that needs it."""
        seen = SeenBlocks()
        for root in self.roots:
            missing = find_missing(self._storage.blocks, root, seen=seen)
            if missing is not None:
                return missing, root
        return None, None

    def _take_undecided(self) -> None:
        """Put the undecided blocks that the roots need, parents first."""
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
        """After a fault, keep what is open and what is undecided: to go on, the rest of the CAR may need it."""
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
        """Sentences about what is kept, for people."""
        if not self.kept_blocks:
            return "Nothing of it was kept"
        blocks = f"{self.kept_blocks:,} block{'s' * (self.kept_blocks != 1)}"
        return (
            f"Kept are {blocks} ({self.kept_bytes:,} bytes): all before byte {self.resume_from} of the CAR, where the next "
            "block begins. Nothing is pinned, so a gc may drop them after its grace. Importing the CAR again goes on, and "
            "writes only what is missing"
        )

    def _explain(self, error: MlflowIpfsError) -> MlflowIpfsError:
        return type(error)(f"{error}. {self.kept()}")


def _read_blocks(reader: CarReader, part: CarPart | None) -> Iterator[tuple[CID, bytes]]:
    """The blocks; that the very first of a CAR's rest is wrong has most likely another reason than damage."""
    try:
        yield from reader
    except (InvalidDataError, IntegrityError) as error:
        if part is None or reader.frame_offset > part.start:
            raise
        msg = f"{error}; perhaps the stream does not begin at byte {part.start} of the CAR"
        raise type(error)(msg) from error
