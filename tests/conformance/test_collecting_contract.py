"""What every ``Storage`` must do about garbage, files and views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, IDENTITY, RAW
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.kinds import NameKind, Root
from mlflow_ipfs.content.names.pins import USER, Pin, PinState
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.maintenance import AffectedReport, GCReport
from mlflow_ipfs.errors import ConflictError, IntegrityError
from support.storages import delete_block, multihashes, publish_blocks, publish_file, put_file, raw

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.storage.base import Storage


def publish_directory(storage: Storage, *files: bytes, owner: str | None = USER) -> tuple[CID, list[CID]]:
    with storage.publish() as publication:
        nodes = NodeBuilder(publication.put, UNIXFS_V1_2025)
        roots = [put_file(publication, data) for data in files]
        links = [Link(root, b"%d" % number, 0) for number, root in enumerate(roots)]
        directory = nodes.build_directory(links).cid
        publication.commit(Changes(pins=[Pin(owner, directory)] if owner else []))
    return directory, roots


def identity_directory(*cids: CID) -> CID:
    """A directory whose node is not stored: it lies in the CID."""
    blocks: dict[CID, bytes] = {}
    nodes = NodeBuilder(blocks.__setitem__, UNIXFS_V1_2025)
    block = blocks[nodes.build_directory([Link(cid, b"%d" % number, 0) for number, cid in enumerate(cids)]).cid]
    return CID(1, DAG_PB, bytes([IDENTITY, len(block)]) + block)


def test_all_below_a_pin_is_kept_and_the_rest_goes(storage: Storage) -> None:
    kept, files = publish_directory(storage, b"a" * 2500, b"b" * 2500)
    gone, _ = publish_directory(storage, b"c" * 2500, owner=None)
    report = storage.collect_garbage()
    assert not report.dry_run
    assert report.removed_blocks > 0
    assert report.freed_bytes > 0
    assert len(list(walk_blocks(storage.blocks, kept))) == report.kept_blocks
    assert open_unixfs(storage.blocks, files[1]).read() == b"b" * 2500
    assert not storage.blocks.has(gone)


def test_what_is_committed_in_steps_stays_until_the_publication_around_them_ends(storage: Storage) -> None:
    with storage.publish() as around:
        [kept] = publish_blocks(storage, b"kept" * 30_000, owner=None)
        [gone] = publish_blocks(storage, b"gone" * 30_000, owner=None)
        storage.collect_garbage()
        [again] = publish_blocks(storage, b"more" * 30_000, owner=None)
        storage.collect_garbage()
        around.commit(Changes(pins=[Pin(USER, kept), Pin(USER, again)]))
        storage.collect_garbage()
        assert storage.blocks.has(gone)
    storage.collect_garbage()
    assert [storage.blocks.has(cid) for cid in (kept, again, gone)] == [True, True, False]


def test_a_pending_pin_keeps_too(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"pending", owner=None)
    storage.pins.add(Pin("freeze", cid, PinState.PENDING))
    storage.collect_garbage()
    assert storage.blocks.has(cid)
    storage.pins.remove(cid, "freeze")
    storage.collect_garbage()
    assert not storage.blocks.has(cid)


def test_a_dry_run_says_the_same_and_removes_nothing(storage: Storage) -> None:
    publish_directory(storage, b"kept" * 700)
    gone, _ = publish_directory(storage, b"gone" * 700, owner=None)
    plan = storage.collect_garbage(dry_run=True)
    assert plan.dry_run
    assert storage.blocks.has(gone)
    done = storage.collect_garbage()
    assert done == GCReport(plan.kept_blocks, plan.removed_blocks, plan.freed_bytes, dry_run=False)
    assert storage.collect_garbage().removed_blocks == 0


def test_content_shared_with_something_dropped_stays(storage: Storage) -> None:
    shared = b"s" * 5000
    publish_directory(storage, shared, b"only there" * 300, owner=None)
    kept, _ = publish_directory(storage, shared)
    storage.collect_garbage()
    assert sum(len(block) for _, block in walk_blocks(storage.blocks, kept)) > 1000


def test_leaves_shared_with_a_dropped_file_stay(storage: Storage) -> None:
    common = bytes(range(250)) * 8
    first = publish_file(storage, common + b"first" * 200, owner=None)
    second = publish_file(storage, common + b"second" * 200)
    storage.collect_garbage()
    assert open_unixfs(storage.blocks, second).read() == common + b"second" * 200
    storage.pins.remove(second)
    storage.collect_garbage()
    assert not storage.blocks.has(first)
    assert not storage.blocks.has(second)


def test_two_files_of_the_same_leaves_are_kept_apart(storage: Storage) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(2500))
    wide, deep = publish_file(storage, data, owner=None), publish_file(storage, data, max_links=3)
    assert wide != deep
    had_path = storage.file_path(deep) is not None
    storage.collect_garbage()
    assert open_unixfs(storage.blocks, deep).read() == data
    assert (storage.file_path(deep) is not None) is had_path


def test_wrapped_leaves_are_kept(storage: Storage) -> None:
    root = publish_file(storage, b"w" * 4500, wrapped=True)
    storage.collect_garbage()
    assert open_unixfs(storage.blocks, root).read() == b"w" * 4500


def test_links_in_dag_cbor_are_followed(storage: Storage) -> None:
    [leaf] = publish_blocks(storage, b"below a record", owner=None)
    record = encode_dagcbor({"leaf": leaf})
    root = CID.of(record, DAG_CBOR)
    with storage.publish() as publication:
        publication.put(root, record)
        publication.commit(Changes(pins=[Pin(USER, root)]))
    storage.collect_garbage()
    assert storage.blocks.has(leaf)


def test_one_block_pinned_as_bytes_and_as_a_node(storage: Storage) -> None:
    directory, [file] = publish_directory(storage, b"f" * 2500, owner=None)
    storage.pins.add(Pin("as bytes", CID(1, RAW, directory.multihash)))
    storage.pins.add(Pin("as node", directory))
    storage.collect_garbage()
    assert storage.blocks.has(file)


def test_with_a_missing_node_nothing_is_removed(storage: Storage) -> None:
    directory, [file] = publish_directory(storage, b"f" * 2500)
    [garbage] = publish_blocks(storage, b"garbage", owner=None)
    delete_block(storage, file)
    with pytest.raises(IntegrityError, match=str(file)) as caught:
        storage.collect_garbage()
    assert str(directory) in str(caught.value)
    assert storage.blocks.has(garbage)


def test_a_missing_leaf_is_no_reason_to_keep_garbage(storage: Storage) -> None:
    publish_directory(storage, b"f" * 2500)
    [garbage] = publish_blocks(storage, b"garbage", owner=None)
    delete_block(storage, CID.of(b"f" * 1000))
    storage.collect_garbage()
    assert not storage.blocks.has(garbage)


def test_bytes_that_only_claim_to_be_a_node(storage: Storage) -> None:
    data = b"\xff\xff not dag-pb"
    cid = CID.of(data, DAG_PB)
    with storage.publish() as publication:
        publication.put(cid, data)
        publication.commit(Changes(pins=[Pin(USER, cid)]))
    storage.collect_garbage()
    assert storage.blocks.has(cid)


def test_what_a_publication_relies_on_stays(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"found again", owner=None)
    with storage.publish() as publication:
        assert publication.has(cid)
        publication.put(*raw(b"on its way"))
        report = storage.collect_garbage()
        assert (report.removed_blocks, report.deletable_blocks, report.deletable_bytes > 0) == (0, 1, True)
        assert storage.blocks.has(cid)
        publication.commit(Changes(pins=[Pin(USER, cid)]))
        storage.collect_garbage()
        storage.pins.add(Pin(USER, CID.of(b"on its way")))  # names may be given until the publication is left
    assert storage.collect_garbage().kept_blocks == 2
    assert storage.blocks.get(cid) == b"found again"
    assert storage.blocks.has(CID.of(b"on its way"))


def test_what_is_held_stays_and_other_garbage_goes(storage: Storage) -> None:
    """Inline and in packs, put by itself and found; without the blocks that they link to."""
    [found] = publish_blocks(storage, b"found" * 30_000, owner=None)
    [other] = publish_blocks(storage, b"other" * 30_000, owner=None)
    node = encode_dagcbor([other])
    held = [*map(CID.of, (b"small", b"large" * 30_000)), CID.of(node, DAG_CBOR)]
    with storage.hold() as hold:
        with storage.publish() as publication:
            for cid, block in zip(held, (b"small", b"large" * 30_000, node), strict=True):
                publication.put(cid, block)
            for cid in (found, *held, CID(1, RAW, bytes([IDENTITY, 1]) + b"x"), CID.of(b"never here")):
                hold.add(cid)
            hold.flush()
            publication.commit()
        [late] = publish_blocks(storage, b"late" * 30_000, owner=None)
        for _ in range(2):
            storage.collect_garbage()
            assert [storage.blocks.has(cid) for cid in (found, *held)] == [True] * 4
            assert not storage.blocks.has(other)
            assert not storage.blocks.has(late)
        report = storage.collect_garbage(dry_run=True)
        assert (report.kept_blocks, report.removed_blocks, report.deletable_blocks) == (4, 0, 0)
        hold.add(late)
    storage.collect_garbage()
    assert list(multihashes(storage)) == []


def test_deletable_content_that_is_then_held_stays(storage: Storage) -> None:
    [found] = publish_blocks(storage, b"found" * 30_000, owner=None)
    storage.collect_garbage(grace_seconds=3600)
    with storage.hold() as hold:
        with storage.publish(hold_existing=True):
            hold.add(found)
            hold.flush()
        storage.collect_garbage()
        assert storage.blocks.get(found) == b"found" * 30_000
    storage.collect_garbage()
    assert not storage.blocks.has(found)


def test_it_goes_when_the_publication_has_ended(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"garbage", owner=None)
    with storage.publish():
        storage.collect_garbage()
    report = storage.collect_garbage()
    assert (report.removed_blocks, report.deletable_blocks) == (1, 0)
    assert not storage.blocks.has(cid)


def test_garbage_is_kept_until_its_grace_is_over(storage: Storage) -> None:
    [cid] = publish_blocks(storage, b"garbage", owner=None)
    for dry_run in (True, False, False, True):
        report = storage.collect_garbage(dry_run=dry_run, grace_seconds=3600)
        assert (report.removed_blocks, report.deletable_blocks, report.freed_bytes) == (0, 1, 0)
    assert storage.blocks.get(cid) == b"garbage"
    assert storage.collect_garbage().removed_blocks == 1
    assert not storage.blocks.has(cid)


def test_what_is_named_in_its_grace_stays(storage: Storage) -> None:
    directory, [file] = publish_directory(storage, b"f" * 2500, owner=None)
    storage.collect_garbage(grace_seconds=3600)
    storage.pins.add(Pin(USER, directory))
    storage.collect_garbage()
    assert open_unixfs(storage.blocks, file).read() == b"f" * 2500


def test_what_is_added_again_in_its_grace_stays(storage: Storage) -> None:
    publish_directory(storage, b"f" * 2500, b"g" * 30, owner=None)
    storage.collect_garbage(grace_seconds=3600)
    _, files = publish_directory(storage, b"f" * 2500, b"g" * 30)
    storage.collect_garbage()
    assert [open_unixfs(storage.blocks, file).read() for file in files] == [b"f" * 2500, b"g" * 30]


def test_roots_are_named(storage: Storage) -> None:
    directory, [file] = publish_directory(storage, b"f" * 2500)
    storage.refs.set("a/ref", file, expected_version=0)
    storage.entries.freeze(Frozen("tree", "run", directory))
    entries = [MfsEntry("tree", path, file, 2500, 2600, 0) for path in ("top", "run/b", "run/a", "run/a2/c")]
    with storage.publish() as publication:
        publication.commit(Changes(entries=entries))
    assert list(storage.roots()) == [
        Root(NameKind.PIN, USER, directory),
        Root(NameKind.REF, "a/ref", file),
        Root(NameKind.FILE, "mfs://tree", None, 1, 2500),
        Root(NameKind.FILE, "mfs://tree/run", None, 2, 5000),
        Root(NameKind.FILE, "mfs://tree/run/a2", None, 1, 2500),
        Root(NameKind.FROZEN, "mfs://tree/run", directory),
    ]


def test_usage_counts_each_block_once(storage: Storage) -> None:
    first, [shared, _] = publish_directory(storage, b"s" * 2500, b"first" * 200)
    second, _ = publish_directory(storage, b"s" * 2500, b"second" * 300)
    publish_blocks(storage, b"garbage", owner=None)
    sizes = {
        root: {cid.multihash: len(block) for cid, block in walk_blocks(storage.blocks, root)}
        for root in (first, second)
    }
    in_both = sum(length for key, length in sizes[first].items() if key in sizes[second])
    assert in_both >= sum(len(block) for _, block in walk_blocks(storage.blocks, shared))
    report = storage.measure_usage([[first], [second, second], []])
    expected = [sum(sizes[root].values()) for root in (first, second)]
    assert [usage.total_bytes for usage in report.groups] == [*expected, 0]
    assert [usage.own_bytes for usage in report.groups] == [size - in_both for size in expected] + [0]
    assert report.unneeded_bytes == len(b"garbage")
    assert report.all_bytes == sum(expected) - in_both + len(b"garbage")


def test_views_are_private_directories(storage: Storage, tmp_path: Path) -> None:
    first, second = storage.make_view_directory(), storage.make_view_directory()
    assert first != second
    assert list(first.iterdir()) == []
    source = tmp_path / "source"
    source.write_bytes(b"v" * 100_000)
    source.chmod(0o444)
    storage.link_file(source, first / "copy")
    assert (first / "copy").read_bytes() == b"v" * 100_000
    with pytest.raises(ConflictError, match="copy"):
        storage.link_file(source, first / "copy")


def test_closing_twice_is_no_error(storage: Storage) -> None:
    storage.close()
    storage.close()


def test_what_needs_a_damaged_block_is_named_and_what_nothing_needs_too(storage: Storage) -> None:
    directory, files = publish_directory(storage, b"a" * 2500, b"b" * 2500)
    other, _ = publish_directory(storage, b"c" * 2500)
    leaf = next(cid for cid, _ in walk_blocks(storage.blocks, files[0]) if cid != files[0])
    garbage = publish_file(storage, b"d" * 2500, owner=None)
    with storage.publish() as publication:
        entries = [MfsEntry("mlflow", "0/run/artifacts/a.bin", files[0], 2500, 2500, 0)]
        publication.commit(Changes(entries=entries, frozen=[Frozen("mlflow", "0/run/artifacts", directory)]))
    storage.refs.set("datasets/a", files[0], expected_version=0)
    report = storage.find_affected([leaf, garbage])
    assert [(name.kind, name.name, name.cid) for name in report.names] == [
        ("file", "mfs://mlflow/0/run/artifacts/a.bin", files[0]),
        ("frozen", "mfs://mlflow/0/run/artifacts", directory),
        ("pin", USER, directory),
        ("ref", "datasets/a", files[0]),
    ]
    assert {name.damaged for name in report.names} == {(leaf,)}
    assert report.unneeded == (garbage,)
    assert [name.cid for name in storage.find_affected([other]).names] == [other]
    assert storage.find_affected([]) == AffectedReport((), ())


def test_below_a_node_that_cannot_be_read_nobody_knows_what_is_needed(storage: Storage) -> None:
    directory, files = publish_directory(storage, b"a" * 2500)
    leaf = next(cid for cid, _ in walk_blocks(storage.blocks, files[0]) if cid != files[0])
    delete_block(storage, files[0])
    report = storage.find_affected([leaf, files[0]])
    assert [(name.cid, name.damaged) for name in report.names] == [(directory, (files[0],))]
    assert report.unneeded == ()


def test_a_damaged_leaf_that_is_a_root_itself_is_needed_by_its_name(storage: Storage) -> None:
    [root] = publish_blocks(storage, b"leaf", owner=USER)
    assert [(name.kind, name.cid) for name in storage.find_affected([root]).names] == [("pin", root)]


def test_whose_own_root_is_missing_is_affected(storage: Storage) -> None:
    directory, [file] = publish_directory(storage, b"a" * 2500)
    storage.refs.set("datasets/a", file, expected_version=0)
    storage.pins.add(Pin("beside", CID(1, RAW, directory.multihash)))
    leaf = next(cid for cid, _ in walk_blocks(storage.blocks, file) if cid != file)
    for root in (directory, file):
        delete_block(storage, root)
    report = storage.find_affected([directory, file, leaf])
    assert {(name.kind, name.name, name.damaged) for name in report.names} == {
        ("pin", USER, (directory,)),
        ("pin", "beside", (directory,)),
        ("ref", "datasets/a", (file,)),
    }
    assert report.unneeded == ()  # who knows what is below them?


def test_damage_below_a_node_that_lies_in_its_cid_has_a_name(storage: Storage) -> None:
    file = publish_file(storage, b"a" * 2500, owner=None)
    leaf = next(cid for cid, _ in walk_blocks(storage.blocks, file) if cid != file)
    [beside] = publish_blocks(storage, b"beside", owner=None)
    above_file, above_leaf, above_both, sound = roots = [
        identity_directory(*cids) for cids in ([file], [leaf], [beside, leaf], [beside])
    ]
    outer = identity_directory(above_file)
    for root in (*roots, outer):
        storage.pins.add(Pin(USER, root))
    report = storage.find_affected([leaf])
    assert {name.cid for name in report.names} == {above_file, above_leaf, above_both, outer}
    assert {name.damaged for name in report.names} == {(leaf,)}
    assert {name.cid for name in storage.find_affected([beside]).names} == {above_both, sound}
