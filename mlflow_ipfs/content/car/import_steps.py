"""Steps of a long import.

A step is a publication that is committed when it reaches its size limit or its time limit. The time limit applies even
while the import waits for a stream.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.storage.base import Hold, Publication, Storage

T = TypeVar("T")

STEP_BYTES: Final = 240 << 20  # of blocks; with their frames they fit into one pack of the local store
STEP_BLOCKS: Final = 1 << 16  # limits the memory of a step to less than 64 MiB
STEP_SECONDS: Final = 10.0  # how long an open step may prevent gc from deleting newly tombstoned blocks


class ImportSteps:
    """Writer that makes blocks durable in steps, without a pin.

    An open publication prevents gc from deleting garbage that was tombstoned since the publication began. Therefore a
    step is open for a limited time only. Between the steps, the hold protects the blocks.

    Args:
        storage: storage that the blocks are written to.
        hold: hold that protects the blocks; flushed before each step is committed.
        on_step: called after each step is durable.

    Attributes:
        blocks: number of durable blocks.
        size_bytes: their total size in bytes.
    """

    def __init__(self, storage: Storage, hold: Hold, on_step: Callable[[], None]) -> None:
        self._storage = storage
        self._hold = hold
        self._on_step = on_step
        self._turn = threading.Lock()  # held by the importing thread, except while it waits for the stream
        self._publication: Publication | None = None
        self._deadline = 0.0
        self._open_blocks = 0
        self._open_bytes = 0
        self._failure: BaseException | None = None
        self.blocks = 0
        self.size_bytes = 0

    def put(self, cid: CID, block: bytes) -> None:
        """Add a verified block. The publication ignores blocks with identity CIDs.

        Raises:
            StoreFullError, StoreBusyError: the open step was discarded.
        """
        if self._publication is None:
            self._publication = self._storage.publish()
            self._deadline = time.monotonic() + STEP_SECONDS
        try:
            self._publication.put(cid, block)
        except BaseException:
            self.discard()
            raise
        self._open_blocks += 1
        self._open_bytes += len(block)
        if self._open_blocks >= STEP_BLOCKS or self._open_bytes >= STEP_BYTES or time.monotonic() >= self._deadline:
            self.commit()

    def commit(self) -> None:
        """Make the open step durable.

        Raises:
            StoreFullError, StoreBusyError: the step was discarded.
        """
        publication = self._publication
        if publication is not None:
            # The publication stays open until the hold is flushed, so that one of them always protects the blocks.
            with publication:
                self._publication = None
                blocks, size_bytes = self._open_blocks, self._open_bytes
                self._open_blocks = self._open_bytes = 0
                self._hold.flush()
                publication.commit()
            self.blocks += blocks
            self.size_bytes += size_bytes
        self._on_step()

    def discard(self) -> None:
        """Discard the open step."""
        publication, self._publication = self._publication, None
        self._open_blocks = self._open_bytes = 0
        if publication is not None:
            with publication:
                pass

    @contextmanager
    def ending_in_time(self) -> Iterator[None]:
        """Commit an expired step from another thread while the calling thread is in ``wait_for``.

        This is done for the duration of a ``with`` block.
        """
        stop = threading.Event()
        thread = threading.Thread(target=self._end_old_steps, args=(stop,), name="mlflow-ipfs-step", daemon=True)
        self._turn = threading.Lock()
        self._turn.acquire()
        try:
            thread.start()
            yield
        finally:
            stop.set()
            thread.join()

    def wait_for(self, items: Iterator[T]) -> T | None:
        """Return the next item, or None at the end. The other thread may commit the step meanwhile.

        Raises:
            StoreFullError, StoreBusyError: the other thread could not commit the step, which was discarded.
        """
        try:
            self._turn.release()
            return next(items, None)
        finally:
            self._turn.acquire()
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure

    def _end_old_steps(self, stop: threading.Event) -> None:
        while not stop.wait(STEP_SECONDS / 4):
            if self._turn.acquire(blocking=False):
                try:
                    if self._publication is not None and time.monotonic() >= self._deadline:
                        self.commit()
                except BaseException as error:  # noqa: BLE001 - the importing thread raises it again
                    self._failure = error
                finally:
                    self._turn.release()
