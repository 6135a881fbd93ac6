"""CARs into a storage, of any size: in steps, so that memory is bounded and what breaks off can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final, Self

from mlflow_ipfs.content.blockstore.interface import Changes
from mlflow_ipfs.content.car import CarReader
from mlflow_ipfs.content.completeness import check_complete
from mlflow_ipfs.content.pins import Pin
from mlflow_ipfs.content.seen_blocks import SeenBlocks
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from mlflow_ipfs.content.blockstore.interface import Publication, Storage
    from mlflow_ipfs.content.car import CarPart
    from mlflow_ipfs.content.cid import CID

STEP_BYTES: Final = 240 << 20  # of blocks; with their frames they fit into one pack of the local store
STEP_BLOCKS: Final = 1 << 16  # what is remembered of a step: less than 64 MiB


class CarImport:
    """The import of one or more CARs, whole or in parts. A context manager.

    Blocks are made durable in steps, without a name. One publication stays open around all of them: until it ends, no
    gc deletes what this import brought or found. So a stream that breaks off, a bad block or a full disk costs at most
    one step, and nothing has to be written twice. Nothing is pinned before ``finish``.

    Args:
        storage: takes the blocks.
        progress: called with the length of each block.

    Attributes:
        roots: the roots that the CARs name, each once.
        kept_blocks: how many blocks were verified and are kept, those that were here before among them.
        kept_bytes: and how many bytes they have.
        resume_from: where the first frame begins, in bytes from the start of the CAR read last, that is not kept.
        payload_end: where the payload of that CAR ends if it is a CARv2, as ``CarPart.end``.
    """

    def __init__(self, storage: Storage, *, progress: Callable[[int], None] | None = None) -> None:
        self._storage = storage
        self._progress = progress
        self.roots: list[CID] = []
        self.kept_blocks = 0
        self.kept_bytes = 0
        self.resume_from = 0
        self.payload_end: int | None = None
        self._around: Publication = storage.publish(keep_found=True)

    def __enter__(self) -> Self:
        self._around.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._around.__exit__(kind, error, trace)

    def take(self, file: BinaryIO, part: CarPart | None = None) -> None:
        """Take in a CAR, or the rest of one.

        What is whole and right before the first fault is kept; the message says how much, and where to go on. That is
        true of an error of the stream itself, too: it gets a note.

        Raises:
            InvalidDataError, IntegrityError: the CAR is malformed or ends early, or a block is wrong.
            StoreFullError, StoreBusyError: the last step was not kept.
        """
        self.resume_from, self.payload_end = 0, None
        reader = CarReader(file, part)
        self.roots = list(dict.fromkeys([*self.roots, *reader.roots]))
        self.resume_from, self.payload_end = reader.frame_offset, reader.payload_end
        blocks = _read_blocks(reader, part)
        while self._take_step(reader, blocks):
            pass

    def _take_step(self, reader: CarReader, blocks: Iterator[tuple[CID, bytes]]) -> bool:
        """Keep the next blocks. Returns whether there may be more."""
        try:
            with self._storage.publish() as publication:
                step = _Step(publication, self._progress)
                step.fill(blocks)
                publication.commit()
        except MlflowIpfsError as error:
            raise self._explain(error) from error
        self.kept_blocks += step.blocks
        self.kept_bytes += step.size_bytes
        self.resume_from = reader.frame_offset
        if isinstance(step.failure, MlflowIpfsError):
            raise self._explain(step.failure) from step.failure
        if step.failure is not None:
            step.failure.add_note(self.kept())
            raise step.failure
        return not step.is_last

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
        seen = SeenBlocks()
        try:
            for root in self.roots:  # inside the publication: until the pins are there, no gc may come between
                check_complete(self._storage.blocks, root, seen=seen)
            self._around.commit(Changes(pins=[Pin(pin, root) for root in self.roots] if pin else []))
        except MlflowIpfsError as error:
            raise self._explain(error) from error
        return self.roots

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


class _Step:
    """What is put into one publication.

    Attributes:
        blocks: how many blocks it has.
        size_bytes: their sizes added up.
        is_last: whether the CAR has no more.
        failure: what was wrong with the stream after these blocks.
    """

    def __init__(self, publication: Publication, progress: Callable[[int], None] | None) -> None:
        self._publication = publication
        self._progress = progress
        self.blocks = 0
        self.size_bytes = 0
        self.is_last = False
        self.failure: BaseException | None = None

    def fill(self, blocks: Iterator[tuple[CID, bytes]]) -> None:
        """Put blocks until the step is full or the CAR at its end."""
        while self.blocks < STEP_BLOCKS and self.size_bytes < STEP_BYTES:
            try:
                cid, block = next(blocks)
            except StopIteration:
                self.is_last = True
                return
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - any stream breaks off in its own way
                self.failure = error
                return
            self._publication.put(cid, block)  # identity CIDs are passed over there
            self.blocks += 1
            self.size_bytes += len(block)
            if self._progress is not None:
                self._progress(len(block))
