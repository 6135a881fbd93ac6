"""Storage in memory: the plainest thing that keeps every promise of ``Storage`` but durability.

For tests, and the model that other storages are compared with.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Self

from mlflow_ipfs.content.blocks.base import BlockReader
from mlflow_ipfs.content.cid import CID, RAW
from mlflow_ipfs.content.codecs.links import links
from mlflow_ipfs.content.codecs.unixfs import block_of_leaf
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.files import make_view_directory_elsewhere
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
            msg = f"the block {cid} is not in memory{cid.hash_note}"
            raise NotFoundError(msg)
        cid.verify(data)
        return data

    def has(self, cid: CID) -> bool:
        """Tell whether the block is here."""
        return cid.identity_data is not None or cid.multihash in self._state.blocks


class _MemoryFile:
    """Takes the bytes of one file and cuts them into blocks when it is finished."""

    def __init__(self, blocks: dict[bytes, bytes]) -> None:
        self._blocks = blocks
        self._data: bytearray | None = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes of the file."""
        self._open_data().extend(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read back bytes that were written."""
        return bytes(self._open_data()[offset : offset + length])

    def finish(self, root: CID, leaves: Iterable[Leaf]) -> None:
        """Cut the leaves out of the file."""
        data = bytes(self._open_data())
        end = 0
        found: dict[bytes, bytes] = {}
        for leaf in leaves:
            if leaf.offset != end:
                msg = f"a leaf of {root} starts at {leaf.offset}, and the one before it ends at {end}"
                raise InvalidDataError(msg)
            end += leaf.length
            piece = data[leaf.offset : end]
            found[leaf.cid.multihash] = block_of_leaf(piece, leaf.form)
        if end != len(data):
            msg = f"the leaves of {root} cover {end} bytes, and {len(data)} were written"
            raise InvalidDataError(msg)
        self._blocks.update(found)
        self._data = None

    def discard(self) -> None:
        """Forget what was written."""
        self._data = None

    def _open_data(self) -> bytearray:
        if self._data is None:
            msg = "the file is finished or discarded"
            raise ValueError(msg)
        return self._data


class MemoryPublication:
    """One publish into memory. See ``Publication``."""

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
        """Start a file."""
        del read_back  # the bytes are in memory anyway
        self._check_open()
        return _MemoryFile(self._blocks)

    def has(self, cid: CID) -> bool:
        """Tell whether the block is in memory or in this publication."""
        self._check_open()
        if cid.identity_data is not None or cid.multihash in self._blocks:
            return True
        return self._is_kept(cid.multihash)

    def commit(self, changes: Changes | None = None) -> int:
        """Make everything visible, then add the names. Returns how many bytes were new."""
        self._check_open()
        changes = changes or Changes()
        if self._in_cache and changes != Changes():
            msg = "what is put into the cache can have no name"
            raise ValueError(msg)
        state = self._state
        self._is_open = False
        with state.changed:
            new = {key: data for key, data in self._blocks.items() if not self._is_kept(key)}
            state.blocks.update(new)
            try:
                for cid in changes.named_cids():
                    state.require(cid)
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
        return sum(len(data) for data in new.values())

    def _is_kept(self, key: bytes) -> bool:
        """Whether a block is there already, as well kept as this publication would keep it."""
        return key in self._state.blocks and (self._in_cache or key not in self._state.cached)

    def _check_open(self) -> None:
        if not self._is_open:
            msg = "this publication has ended"
            raise ValueError(msg)


class MemoryHold:
    """A hold on blocks in memory. See ``Hold``."""

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
    """Storage in the memory of one process, shared by its threads. See ``Storage``.

    Args:
        timeout_seconds: how long a garbage collection waits for publications to end.
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
        """Single blocks."""
        return self._blocks

    @property
    def pins(self) -> MemoryPins:
        """What is kept, and for whom."""
        return self._pins

    @property
    def refs(self) -> MemoryRefs:
        """Mutable names for CIDs."""
        return self._refs

    @property
    def notes(self) -> MemoryNotes:
        """Texts that a layer above keeps here."""
        return self._notes

    @property
    def entries(self) -> MemoryEntries:
        """The mutable file trees."""
        return self._entries

    def publish(self, *, in_cache: bool = False, hold_existing: bool = False) -> MemoryPublication:
        """Start a publication. While one is open, nothing at all is deleted here."""
        del hold_existing
        return MemoryPublication(self._state, in_cache=in_cache)

    def hold(self) -> MemoryHold:
        """Start a hold."""
        return MemoryHold(self._state)

    def heal_from(self, source: BlockReader | None) -> None:
        """Nothing gets damaged here."""

    def file_path(self, cid: CID) -> Path | None:
        """None: there are no files."""
        del cid
        return None

    def ensure_file(self, cid: CID) -> Path | None:
        """None, too."""
        return self.file_path(cid)

    def ready_file(self, cid: CID) -> Path | None:
        """Return None: memory has no files."""
        return self.file_path(cid)

    def link_file(self, source: Path, destination: Path) -> None:
        """Copy."""
        try:
            with source.open("rb") as original, destination.open("xb") as copy:
                shutil.copyfileobj(original, copy)
        except FileExistsError as error:
            raise destination_exists(destination) from error

    def make_view_directory(self) -> Path:
        """A new empty private directory, removed when this process ends."""
        return make_view_directory_elsewhere()

    def roots(self) -> Iterator[Root]:
        """Yield every name that retains content, by kind and name."""
        with self._state.changed:
            roots = list(self._state.kept_names())
        return iter(roots)

    def measure_usage(self, groups: Sequence[Sequence[CID]]) -> UsageReport:
        """Add up what lies below each group of roots."""
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
        """Hash everything."""
        with self._state.changed:
            blocks = dict(self._state.blocks)
        for data in blocks.values():
            if progress is not None:
                progress(len(data))
        cids = [(CID(1, RAW, key), data) for key, data in blocks.items()]
        problems = tuple((cid, f"the block {cid} is damaged") for cid, data in cids if not cid.matches(data))
        return ScrubReport(len(blocks), sum(map(len, blocks.values())), problems)

    def find_affected(self, damaged: Collection[CID]) -> AffectedReport:
        """Find the names that need what is damaged."""
        with self._state.changed:
            named = list(self._state.names())
        found: list[Affected] = []
        met: set[CID] = set()
        is_complete = True
        for kind, name, root in named:
            needed, can_be_read = self._reach(root)
            below = [cid for cid in damaged if cid.multihash in needed]
            met.update(below)
            is_complete &= can_be_read
            if below:
                found.append(Affected(kind, name, root, tuple(below[:MAX_DAMAGED_NAMED])))
        found.sort(key=lambda affected: (affected.kind, affected.name, str(affected.cid)))
        return AffectedReport(tuple(found), tuple(cid for cid in damaged if is_complete and cid not in met))

    def _reach(self, root: CID) -> tuple[set[bytes], bool]:
        """What lies below a root, and whether all nodes there can be read."""
        reached, stack, can_be_read = {root.multihash}, [root], True
        while stack:
            cid = stack.pop()
            try:
                children = links(cid, self._blocks.get(cid)) if cid.codec != RAW else ()
            except (NotFoundError, IntegrityError):
                can_be_read = False
                continue
            except InvalidDataError:
                continue  # bytes that only claim to be a node
            stack += [child for child in dict.fromkeys(children) if child.multihash not in reached]
            reached.update(child.multihash for child in children)
        return reached, can_be_read

    def collect_garbage(self, *, dry_run: bool = False, grace_seconds: float = 0) -> GCReport:
        """Drop what nothing refers to."""
        state = self._state
        with state.changed:
            needed = self._mark(state.roots()).union(*state.holds)
            state.cached -= needed
            garbage = {key: len(data) for key, data in state.blocks.items() if key not in needed | state.cached}
            kept = len(state.blocks) - len(garbage)
            if grace_seconds > 0 or state.publications:  # nothing is noted here, so a grace never ends
                return GCReport(kept, 0, 0, dry_run, len(garbage), sum(garbage.values()))
            if not dry_run:
                for key in garbage:
                    del state.blocks[key]
        return GCReport(kept, len(garbage), sum(garbage.values()), dry_run)

    def _mark(self, roots: Iterable[CID]) -> set[bytes]:
        needed: set[bytes] = set()
        nodes: set[tuple[bytes, int]] = set()

        def keep(cid: CID) -> bool:
            needed.add(cid.multihash)
            is_new = (cid.multihash, cid.codec) not in nodes
            nodes.add((cid.multihash, cid.codec))
            return is_new

        mark(self._blocks, roots, keep)
        return needed

    def close(self) -> None:
        """Nothing is held."""
