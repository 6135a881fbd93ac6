"""The local store and the store in memory, given the same orders, say the same.

The local store takes its orders in turn through two handles, and in a forked child of its own.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlflow_ipfs.content.checking.completeness import find_missing
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.gc.eviction import evict
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.errors import MlflowIpfsError
from support.storages import check_sound, delete_block, multihashes, put_block, put_file, raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_ipfs.content.storage.base import Storage
    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.soak import Count

# Few values of everything, so that they meet.
CONTENTS = {
    "empty": b"", "a": b"a", "b1000": b"b" * 1000, "c2500": b"c" * 2500, "a70000": b"a" * 70_000,
    "d33000": b"d" * 33_000, "all": bytes(range(250)) * 10,
    "long": bytes(number % 251 for number in range(80_000)), "longer": bytes(number % 251 for number in range(99_000)),
}  # fmt: skip
contents = st.sampled_from(sorted(CONTENTS))
paths = st.sampled_from(["a", "a/b", "a/b/c", "a-b", "a/b-c", "d/e", "d", "é/ü"])
owners = st.sampled_from(["user", "run/1", "run/2"])
names = st.sampled_from(["main", "main/x"])
states = st.sampled_from(list(PinState))
TREE = "tree"
WHO = ("first", "second", "child")


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class of our error."""
    try:
        return call()
    except MlflowIpfsError as error:
        return type(error)


def in_child(call: Callable[[], Any]) -> Any:
    """The outcome of a call in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, pickle.dumps(outcome(call)))  # of few bytes: a pipe takes 64 KiB at once
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return pickle.loads(answer)


class SameAsMemory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.directory = Path(self.temporary.name) / "store"
        self.known: list[CID] = [CID.of(b"never published")]
        self.contents: dict[CID, bytes] = {}
        self.who = WHO[0]
        self.has_holes = False  # a block was deleted that something may need

    @initialize()
    def begin(self) -> None:
        self.handles = [open_local_storage(self.directory, timeout_seconds=20) for _ in range(2)]
        self.memory = MemoryStorage()

    def teardown(self) -> None:
        for handle in getattr(self, "handles", []):
            handle.close()
        self.temporary.cleanup()

    @property
    def local(self) -> LocalStorage:
        """The handle whose turn it is; a child inherits the second one."""
        return self.handles[self.who != WHO[0]]

    def both(self, call: Callable[[Storage], Any]) -> Any:
        """Give both an order. What they answer must be the same."""
        run = in_child if self.who == "child" else outcome
        local, memory = run(lambda: call(self.local)), outcome(lambda: call(self.memory))
        assert local == memory
        return local

    @rule(who=st.sampled_from(WHO))
    def take_turns(self, who: str) -> None:
        self.who = who

    def is_complete(self, cid: CID) -> bool:
        return find_missing(self.memory.blocks, cid) is None

    def names_something_incomplete(self) -> bool:
        """A name asks only for its root: parts of content that had no name may have gone before it got one."""
        names: list[Any] = [*self.memory.pins.list(), *self.memory.refs.list(), *self.memory.entries.list_frozen()]
        return not all(self.is_complete(name.cid) for name in [*names, *self.memory.entries.walk(TREE, "")])

    def pick(self, data: st.DataObject) -> CID:
        cid: CID = data.draw(st.sampled_from(self.known))
        return cid

    @rule(
        files=st.lists(st.tuples(contents, st.booleans()), max_size=3),
        blocks=st.lists(contents, max_size=3),
        entry_paths=st.lists(paths, max_size=2),
        owner=owners,
        state=states,
        do_commit=st.booleans(),
        data=st.data(),
    )
    def publish(
        self,
        files: list[tuple[str, bool]],
        blocks: list[str],
        entry_paths: list[str],
        owner: str,
        state: PinState,
        do_commit: bool,
        data: st.DataObject,
    ) -> None:
        other = self.pick(data)

        def work(storage: Storage) -> list[CID]:
            with storage.publish() as publication:
                roots = [put_file(publication, CONTENTS[content], wrapped=wrapped) for content, wrapped in files]
                for block in blocks:
                    publication.put(*raw(CONTENTS[block]))
                roots += [CID.of(CONTENTS[block]) for block in blocks]
                targets = [*roots, other]
                changes = Changes(
                    pins=[Pin(owner, root, state) for root in roots[:2]],
                    entries=[MfsEntry(TREE, path, targets[0], 1, 2, 3) for path in entry_paths],
                    frozen=[Frozen(TREE, path, targets[-1]) for path in entry_paths[:1]],
                )
                if do_commit:
                    publication.commit(changes)
            return roots

        roots = self.both(work)
        if isinstance(roots, list):
            self.remember(roots, [*(name for name, _ in files), *blocks])

    @rule(files=st.lists(st.tuples(contents, st.booleans()), max_size=2), blocks=st.lists(contents, max_size=2))
    def publish_into_the_cache(self, files: list[tuple[str, bool]], blocks: list[str]) -> None:
        def work(storage: Storage) -> list[CID]:
            with storage.publish(in_cache=True) as publication:
                roots = [put_file(publication, CONTENTS[content], wrapped=wrapped) for content, wrapped in files]
                for block in blocks:
                    publication.put(*raw(CONTENTS[block]))
                publication.commit()
            return roots + [CID.of(CONTENTS[block]) for block in blocks]

        self.remember(self.both(work), [*(name for name, _ in files), *blocks])

    def remember(self, roots: list[CID], names: list[str]) -> None:
        self.known += [root for root in dict.fromkeys(roots) if root not in self.known]
        self.contents.update(zip(roots, map(CONTENTS.__getitem__, names), strict=True))

    @rule()
    def empty_the_cache(self) -> None:
        """What the local store drops is dropped in memory, too; it can be nothing that has a name."""
        before = set(multihashes(self.local))
        evict(self.local._context, 0)
        self.forget_cached(before - set(multihashes(self.local)))

    def forget_cached(self, gone: set[bytes]) -> None:
        """Let the memory have lost the same blocks; only cached ones may be."""
        assert gone <= self.memory._state.cached
        for multihash in gone:
            delete_block(self.memory, CID(1, 0x55, multihash))

    @rule(data=st.data())
    def ask_for_a_path(self, data: st.DataObject) -> None:
        cid = self.pick(data)
        path = outcome(lambda: self.local.ensure_file(cid))
        if isinstance(path, Path):
            # Not read from memory: a file whose path was handed out stays, although the nodes above it were evicted.
            assert path.read_bytes() == self.contents[cid]
            assert self.local.ready_file(cid) == path
        elif path is not None:
            assert self.has_holes or not self.is_complete(cid)

    @rule(owner=owners, state=states, data=st.data())
    def add_pin(self, owner: str, state: PinState, data: st.DataObject) -> None:
        cid = self.pick(data)
        self.both(lambda storage: storage.pins.add(Pin(owner, cid, state)))

    @rule(owner=owners, data=st.data())
    def remove_pin(self, owner: str, data: st.DataObject) -> None:
        cid = self.pick(data)
        self.both(lambda storage: storage.pins.remove(cid, owner))

    @rule(old=owners, new=owners, old_state=states, data=st.data())
    def replace_pin(self, old: str, new: str, old_state: PinState, data: st.DataObject) -> None:
        cid, other = self.pick(data), self.pick(data)
        self.both(lambda storage: storage.pins.replace(Pin(old, cid, old_state), Pin(new, other)))

    @rule(name=names, version=st.integers(0, 3), data=st.data())
    def set_ref(self, name: str, version: int, data: st.DataObject) -> None:
        cid = self.pick(data)
        self.both(lambda storage: storage.refs.set(name, cid, expected_version=version))

    @rule(name=names, version=st.integers(0, 3))
    def delete_ref(self, name: str, version: int) -> None:
        self.both(lambda storage: storage.refs.delete(name, expected_version=version))

    @rule(path=st.one_of(paths, st.just("")))
    def delete_entries(self, path: str) -> None:
        self.both(lambda storage: storage.entries.delete(TREE, path))

    @rule(path=paths, data=st.data())
    def freeze(self, path: str, data: st.DataObject) -> None:
        frozen = Frozen(TREE, path, self.pick(data))
        self.both(lambda storage: storage.entries.freeze(frozen))

    @rule(path=paths, data=st.data())
    def unfreeze(self, path: str, data: st.DataObject) -> None:
        frozen = Frozen(TREE, path, self.pick(data))
        self.both(lambda storage: storage.entries.unfreeze(frozen))

    @rule(path=st.one_of(paths, st.just("")))
    def look(self, path: str) -> None:
        self.both(lambda storage: storage.entries.stat(TREE, path))
        self.both(lambda storage: list(storage.entries.list(TREE, path)))
        self.both(lambda storage: list(storage.entries.walk(TREE, path)))

    @rule()
    def collect_garbage(self) -> None:
        local = outcome(lambda: self.local.collect_garbage(grace_seconds=0))
        memory = outcome(self.memory.collect_garbage)
        if isinstance(local, type) or isinstance(memory, type):
            assert self.has_holes or self.names_something_incomplete()
            assert local == memory
            return
        # The local store keeps a whole file while anything in it is needed; never less than needed. It also
        # drops what was promote out of the cache for a name that then was not given.
        gone = set(multihashes(self.memory)) - set(multihashes(self.local))
        self.forget_cached(gone)
        for multihash in set(multihashes(self.local)) - set(multihashes(self.memory)):
            cid = CID(1, 0x55, multihash)
            put_block(self.memory, cid, self.local.blocks.get(cid))

    @rule(data=st.data())
    def delete_block(self, data: st.DataObject) -> None:
        cid = self.pick(data)
        self.has_holes = self.both(lambda storage: delete_block(storage, cid)) is True or self.has_holes

    @rule()
    def reopen(self) -> None:
        self.local.close()
        self.handles[self.who != WHO[0]] = open_local_storage(self.directory, timeout_seconds=20, create=False)

    @precondition(lambda self: hasattr(self, "handles"))
    @invariant()
    def names_and_blocks_are_the_same(self) -> None:
        turn = self.who
        for self.who in WHO[:2]:
            self.compare_names_and_blocks()
        self.who = turn

    def compare_names_and_blocks(self) -> None:
        self.both(lambda storage: list(storage.pins.list()))
        self.both(lambda storage: list(storage.pins.list(owner_prefix="run/")))
        self.both(lambda storage: list(storage.refs.list()))
        self.both(lambda storage: list(storage.entries.list_frozen()))
        self.both(lambda storage: set(multihashes(storage)))

    @rule()
    def read_everything(self) -> None:
        if not self.has_holes and not self.names_something_incomplete():
            check_sound(self.local)
        for cid in self.known:
            self.both(lambda storage, cid=cid: storage.blocks.has(cid))  # type: ignore[misc]
            self.both(lambda storage, cid=cid: [found for found, _ in walk_blocks(storage.blocks, cid)])  # type: ignore[misc]
            path = self.local.file_path(cid)
            if path is not None:
                assert path.stat().st_mode & 0o777 == 0o444


@pytest.fixture(autouse=True)
def large_files_begin_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 50_000)


TestSameAsMemory = pytest.mark.slow(SameAsMemory.TestCase)
TestSameAsMemory.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


@pytest.mark.soak
def test_same_as_memory_for_long(record_property: Count) -> None:
    run_state_machine_as_test(SameAsMemory, settings=settings(max_examples=400, stateful_step_count=60, deadline=None))
    record_property("programs of the state machine", 400)
