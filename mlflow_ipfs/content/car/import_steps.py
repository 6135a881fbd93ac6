"""Steps of a long import: publications that end when they are full or old, even while the import waits for a stream."""

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
STEP_BLOCKS: Final = 1 << 16  # what is remembered of a step: less than 64 MiB
STEP_SECONDS: Final = 10.0  # how long an open step may keep a gc from deleting what it has just found unneeded


class ImportSteps:
    """Makes blocks durable in steps, without a name.

    An open publication keeps every gc from deleting garbage that was condemned since the publication began. So a step
    is open for a limited time only. Between the steps the hold protects the blocks.

    Args:
        storage: takes the blocks.
        hold: protects them; flushed before a step ends.
        on_step: called when a step is durable.

    Attributes:
        blocks: how many blocks are durable.
        size_bytes: how many bytes they have.
    """

    def __init__(self, storage: Storage, hold: Hold, on_step: Callable[[], None]) -> None:
        self._storage = storage
        self._hold = hold
        self._on_step = on_step
        self._turn = threading.Lock()  # the importing thread's, except while it waits
        self._publication: Publication | None = None
        self._until = 0.0
        self._open_blocks = 0
        self._open_bytes = 0
        self._failure: BaseException | None = None
        self.blocks = 0
        self.size_bytes = 0

    def put(self, cid: CID, block: bytes) -> None:
        """Add a block that was verified. Identity CIDs are passed over by the publication.

        Raises:
            StoreFullError, StoreBusyError: the step that was open is not kept.
        """
        if self._publication is None:
            self._publication = self._storage.publish()
            self._until = time.monotonic() + STEP_SECONDS
        try:
            self._publication.put(cid, block)
        except BaseException:
            self.discard()
            raise
        self._open_blocks += 1
        self._open_bytes += len(block)
        if self._open_blocks >= STEP_BLOCKS or self._open_bytes >= STEP_BYTES or time.monotonic() >= self._until:
            self.commit()

    def commit(self) -> None:
        """Make what is open durable.

        Raises:
            StoreFullError, StoreBusyError: the step is not kept.
        """
        publication = self._publication
        if publication is not None:
            with publication:  # left open until the hold is flushed: one of both always protects the blocks
                self._publication = None
                blocks, size_bytes = self._open_blocks, self._open_bytes
                self._open_blocks = self._open_bytes = 0
                self._hold.flush()
                publication.commit()
            self.blocks += blocks
            self.size_bytes += size_bytes
        self._on_step()

    def discard(self) -> None:
        """Drop what is open."""
        publication, self._publication = self._publication, None
        self._open_blocks = self._open_bytes = 0
        if publication is not None:
            with publication:
                pass

    @contextmanager
    def ending_in_time(self) -> Iterator[None]:
        """End an old step from another thread, for the length of a ``with``, while this one is in ``wait_for``."""
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
        """Return the next item, or None at the end; the other thread may end the step meanwhile.

        Raises:
            StoreFullError, StoreBusyError: the other thread could not keep the step.
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
                    if self._publication is not None and time.monotonic() >= self._until:
                        self.commit()
                except BaseException as error:  # noqa: BLE001 - raised by the importing thread
                    self._failure = error
                finally:
                    self._turn.release()
