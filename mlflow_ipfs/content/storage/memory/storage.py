"""Storage in memory: the simplest implementation of ``Storage``, without durability.

For tests, and the model that other storages are compared with.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.content.codecs.unixfs import block_of_leaf
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.files import make_temporary_view_directory
from mlflow_ipfs.content.storage.maintenance import (
    MAX_DAMAGED_NAMED,
    Affected,
    AffectedReport,
    GCReport,
    ScrubReport,
    Usage,
    UsageReport,
)
from mlflow_ipfs.content.storage.marking import mark
from mlflow_ipfs.content.storage.memory.names import MemoryEntries, MemoryNotes, MemoryPins, MemoryRefs, MemoryState
from mlflow_ipfs.content.storage.validation import check_block_size, destination_exists
from mlflow_ipfs.errors import IntegrityError, InvalidDataError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from mlflow_ipfs.content.blocks.base import Leaf
    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.storage.base import FileWriter


class MemoryBlocks(BlockReader):
    """Blocks in a dict."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def get(self, cid: CID) -> bytes:
        """Return a block, verified against its CID."""
        data = cid.identity_data
        if data is None:
            data = self._state.blocks.get(cid.multihash)
        if data is None:
            msg = f"the block {cid} is not in memory{cid.hash_hint}"
            raise NotFoundError(msg)
        cid.verify(data)
        return data

    def has(self, cid: CID) -> bool:
        """Return whether the block is in memory."""
        return cid.identity_data is not None or cid.multihash in self._state.blocks


_SESSION: Final = "memory"


class _MemoryFile:
    """Writer of one file, which is cut into blocks when it is finished."""

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        self._blocks = blocks
        self._data: bytearray | None = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the file."""
        self._open_data().extend(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return written bytes, fewer only at the end."""
        return bytes(self._open_data()[offset : offset + length])

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Complete the file: cut it into the blocks of its leaves."""
        data = bytes(self._open_data())
        end = 0
        found: dict[bytes, bytes] = {}
        for leaf in leaves:
            if leaf.offset != end:
                msg = f"a leaf of {root} starts at byte {leaf.offset}, but the previous leaf ends at byte {end}"
                raise InvalidDataError(msg)
            end += leaf.length
            piece = data[leaf.offset : end]
            found[leaf.cid.multihash] = block_of_leaf(piece, leaf.form)
        if end != len(data):
            msg = f"the leaves of {root} cover {end} bytes, but {len(data)} bytes were written"
            raise InvalidDataError(msg)
        self._blocks.update(found)
        self._data = None

    def discard(self) -> None:
        """Discard the written bytes."""
        self._data = None

    def _open_data(self) -> bytearray:
        if self._data is None:
            msg = "the file is finished or discarded"
            raise ValueError(msg)
        return self._data


class MemoryPublication:
    """One publication in memory; see ``Publication``."""

    def __init__(self, state: MemoryState, *, in_cache: bool = False) -> None:
        self._state = state
        self._in_cache = in_cache
        self._blocks: dict[bytes, bytes] = {}
        self._is_open = True
        self._is_counted = True
        with state.changed:
            state.publications += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_open = False
        if self._is_counted:
            self._is_counted = False
            with self._state.changed:
                self._state.publications -= 1
                self._state.changed.notify_all()

    def put(self, cid: CID, data: bytes) -> None:
        """Add a block."""
        self._check_open()
        check_block_size(cid, data)
        if cid.identity_data is None:
            self._blocks[cid.multihash] = bytes(data)

    def begin_file(self, *, read_back: bool = False) -> FileWriter:
        """Begin a file."""
        del read_back  # not needed, because the bytes stay in memory
        self._check_open()
        return _MemoryFile(self._blocks)

    def has(self, cid: CID) -> bool:
        """Return whether the block is in memory or in this publication."""
        self._check_open()
        if cid.identity_data is not None or cid.multihash in self._blocks:
            return True
        return self._is_stored(cid.multihash)

    def commit(self, changes: Changes | None = None) -> int:
        """Make the blocks readable, and then change the names. Return the number of new bytes."""
        self._check_open()
        changes = changes or Changes()
        if self._in_cache and changes != Changes():
            msg = "a publication into the cache cannot change names"
            raise ValueError(msg)
        state = self._state
        self._is_open = False
        with state.changed:
            new = {key: data for key, data in self._blocks.items() if not self._is_stored(key)}
            state.blocks.update(new)
            try:
                for cid in changes.named_cids():
                    state.require(cid)
                state.check_expected(changes.expected)
                state.put_entries(changes.entries)
            except BaseException:
                for key in new.keys() - state.cached:
                    del state.blocks[key]
                raise
            state.cached = state.cached | new.keys() if self._in_cache else state.cached - new.keys()
            for pin in changes.unpins:
                state.pins.pop((pin.owner, bytes(pin.cid)), None)
            for pin in changes.pins:
                state.pins[pin.owner, bytes(pin.cid)] = pin
            state.outbox += changes.outbox
            state.frozen.update(changes.frozen)
            state.notes.update(changes.notes)
        return sum(len(data) for data in new.values())

    def _is_stored(self, key: bytes) -> bool:
        """Return whether a block is stored already. Outside the cache, a cached block counts as absent."""
        return key in self._state.blocks and (self._in_cache or key not in self._state.cached)

    def _check_open(self) -> None:
        if not self._is_open:
            msg = "this publication has ended"
            raise ValueError(msg)


class MemoryHold:
    """Hold on blocks in memory; see ``Hold``."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state
        self._added: set[bytes] = set()
        self._held: set[bytes] = set()
        with state.changed:
            state.holds.append(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state.changed:
            self._state.holds = [held for held in self._state.holds if held is not self._held]

    def add(self, cid: CID) -> None:
        """Add a block."""
        self._added.add(cid.multihash)

    def flush(self) -> None:
        """Protect the blocks that were added."""
        with self._state.changed:
            self._held |= self._added
        self._added.clear()


class MemoryStorage:
    """Storage in the memory of one process, shared by its threads; see ``Storage``.

    Args:
        timeout_seconds: accepted like that of other storages, but not used: a collection never waits for publications.
    """

    def __init__(self, *, timeout_seconds: float = 60.0) -> None:
        self._state = MemoryState()
        self._timeout_seconds = timeout_seconds
        self._blocks = MemoryBlocks(self._state)
        self._pins = MemoryPins(self._state)
        self._refs = MemoryRefs(self._state)
        self._notes = MemoryNotes(self._state)
        self._entries = MemoryEntries(self._state)

    @property
    def blocks(self) -> MemoryBlocks:
        """The stored blocks."""
        return self._blocks

    @property
    def pins(self) -> MemoryPins:
        """Promises to keep content, by owner."""
        return self._pins

    @property
    def refs(self) -> MemoryRefs:
        """Mutable names for CIDs."""
        return self._refs

    @property
    def notes(self) -> MemoryNotes:
        """Short texts that a higher layer stores by key."""
        return self._notes

    @property
    def entries(self) -> MemoryEntries:
        """The mutable file trees."""
        return self._entries

    def publish(self, *, in_cache: bool = False, hold_existing: bool = False) -> MemoryPublication:
        """Begin a publication. While a publication is open, garbage collection deletes nothing."""
        del hold_existing
        return MemoryPublication(self._state, in_cache=in_cache)

    def session_name(self) -> str:
        """Return the one session: no other process can use this storage."""
        return _SESSION

    def is_session_open(self, name: str) -> bool:
        """Return whether it is the one session."""
        return name == _SESSION

    def hold(self) -> MemoryHold:
        """Begin a hold."""
        return MemoryHold(self._state)

    def heal_from(self, source: BlockReader | None) -> None:
        """No-op: blocks in memory are not healed."""

    def file_path(self, cid: CID) -> Path | None:
        """Return None: a storage in memory has no files."""
        del cid
        return None

    def ensure_file(self, cid: CID) -> Path | None:
        """Return None, as ``file_path`` does."""
        return self.file_path(cid)

    def ready_file(self, cid: CID) -> Path | None:
        """Return None, as ``file_path`` does."""
        return self.file_path(cid)

    def link_file(self, source: Path, destination: Path) -> None:
        """Copy ``source`` to ``destination``, which must not exist."""
        try:
            with source.open("rb") as original, destination.open("xb") as copy:
                shutil.copyfileobj(original, copy)
        except FileExistsError as error:
            raise destination_exists(destination) from error

    def make_view_directory(self) -> Path:
        """Make a new, empty, private directory that is removed when this process ends."""
        return make_temporary_view_directory()

    def roots(self) -> Iterator[Root]:
        """Yield every name that retains content, by kind and name."""
        with self._state.changed:
            roots = list(self._state.root_names())
        return iter(roots)

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Return the size of all blocks below each group of roots."""
        with self._state.changed:
            needed = [self._mark(roots) & self._state.blocks.keys() for roots in groups]
            sizes = {key: len(data) for key, data in self._state.blocks.items()}
        needs = Counter(key for keys in needed for key in keys)
        usages = tuple(
            Usage(sum(sizes[key] for key in keys), sum(sizes[key] for key in keys if needs[key] == 1))
            for keys in needed
        )
        return UsageReport(usages, sum(sizes.values()), sum(size for key, size in sizes.items() if key not in needs))

    def scrub(self, progress: Callable[[int], None] | None = None) -> ScrubReport:
        """Hash all blocks."""
        with self._state.changed:
            blocks = dict(self._state.blocks)
        for data in blocks.values():
            if progress is not None:
                progress(len(data))
        cids = [(CID(1, RAW, key), data) for key, data in blocks.items()]
        problems = tuple((cid, f"the block {cid} is damaged") for cid, data in cids if not cid.matches(data))
        return ScrubReport(len(blocks), sum(map(len, blocks.values())), problems)

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Return the names that need damaged blocks."""
        with self._state.changed:
            names = list(self._state.names())
        found: list[Affected] = []
        needed: set[CID] = set()
        is_complete = True
        for kind, name, root in names:
            reached, is_readable = self._reach(root)
            below = [cid for cid in damaged if cid.multihash in reached]
            needed.update(below)
            is_complete &= is_readable
            if below:
                found.append(Affected(kind, name, root, tuple(below[:MAX_DAMAGED_NAMED])))
        found.sort(key=lambda affected: (affected.kind, affected.name, str(affected.cid)))
        return AffectedReport(tuple(found), tuple(cid for cid in damaged if is_complete and cid not in needed))

    def _reach(self, root: CID) -> tuple[set[bytes], bool]:
        """Return the multihashes of all blocks below a root, and whether all nodes below it are readable."""
        reached, stack, is_readable = {root.multihash}, [root], True
        while stack:
            cid = stack.pop()
            try:
                children = links(cid, self._blocks.get(cid)) if cid.codec != RAW else ()
            except (NotFoundError, IntegrityError):
                is_readable = False
                continue
            except InvalidDataError:
                continue  # the bytes match the CID, but are not a valid node
            stack += [child for child in dict.fromkeys(children) if child.multihash not in reached]
            reached.update(child.multihash for child in children)
        return reached, is_readable

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Delete blocks that no name and no hold needs."""
        state = self._state
        with state.changed:
            needed = self._mark(state.roots()).union(*state.holds)
            state.cached -= needed
            garbage = {key: len(data) for key, data in state.blocks.items() if key not in needed | state.cached}
            kept = len(state.blocks) - len(garbage)
            if grace_seconds > 0 or state.publications:  # memory has no tombstones, so a grace period never ends
                return GCReport(kept, 0, 0, dry_run, len(garbage), sum(garbage.values()))
            if not dry_run:
                for key in garbage:
                    del state.blocks[key]
        return GCReport(kept, len(garbage), sum(garbage.values()), dry_run)

    def _mark(self, roots: Iterable[CID]) -> set[bytes]:
        needed: set[bytes] = set()
        nodes: set[tuple[bytes, int]] = set()

        def visit(cid: CID) -> bool:
            needed.add(cid.multihash)
            is_new = (cid.multihash, cid.codec) not in nodes
            nodes.add((cid.multihash, cid.codec))
            return is_new

        mark(self._blocks, roots, visit)
        return needed

    def close(self) -> None:
        """No-op: a storage in memory holds no files or locks."""
