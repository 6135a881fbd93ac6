"""Stores whose index is lost: filled with content of every kind, damaged, and compared with their previous content."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.dag import walk_blocks
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.file_reader import open_unixfs
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.storages import (
    check_sound,
    files_of,
    leftovers,
    publish_blocks,
    publish_file,
    raw,
    rows_of,
)
from support.store_workload import Names, Workload, check_whole, names_of

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.local import LocalStorage
    from mlflow_ipfs.content.storage.local.repair.rebuild import RebuildReport

CUTS = (FixedSizeChunker(1000), FixedSizeChunker(4096))
SMALL_V1 = replace(UNIXFS_V1_2025, name="small-v1", chunk_bytes=1000, hamt_threshold_bytes=2000)
SMALL_V0 = replace(UNIXFS_V0_2015, name="small-v0", chunk_bytes=1000, hamt_threshold_bytes=2000)


@dataclass
class Model:
    """Content of a store.

    Attributes:
        names: all names in the store.
        blocks: for each named root, its blocks by multihash.
        contents: data of the files.
    """

    names: Names
    blocks: dict[CID, dict[bytes, bytes]]
    contents: dict[CID, bytes]


def remember(storage: LocalStorage, contents: dict[CID, bytes]) -> Model:
    names = names_of(storage)
    blocks = {
        root: {cid.multihash: block for cid, block in walk_blocks(storage.blocks, root)} for root in names.roots()
    }
    return Model(names, blocks, contents)


def fill(storage: LocalStorage, seed: int, work: Path) -> Model:
    """Store files and directories of every kind, with random sizes, in random order, and sometimes run a gc."""
    chance = random.Random(seed)
    workload = Workload()
    steps = workload.steps()
    for step in steps[: chance.randint(5, len(steps))]:
        step(storage)
    for number, profile in enumerate([SMALL_V1, SMALL_V0] * 2):
        store = ContentStore(storage, profile=profile, chunker=chance.choice(CUTS))
        directory = work / f"{seed}-{number}"
        directory.mkdir(parents=True)
        for file in range(chance.choice([3, 40])):
            size = chance.choice([0, 1, 999, 1000, 1001, 4096, 30_000])
            (directory / f"file {file}").write_bytes(chance.randbytes(size))
        store.add(directory, pin=chance.choice(["user", "run/7"]))
        if chance.random() < 0.3:
            storage.collect_garbage(grace_seconds=0)
    return remember(storage, dict(workload.contents))


def lose_index(directory: Path, *, backups: bool = True) -> None:
    for path in directory.glob("store.db*"):
        path.unlink()
    if not backups:
        for path in (directory / "backup").iterdir():
            path.unlink()


def check_kept(storage: LocalStorage, model: Model) -> None:
    """Check that all content that had a name is stored, block for block, even if the name is lost."""
    for root, blocks in model.blocks.items():
        found = {cid.multihash: block for cid, block in walk_blocks(storage.blocks, root)}
        assert found == blocks
        if root in model.contents:
            assert open_unixfs(storage.blocks, root).read() == model.contents[root]


def check_rebuilt(directory: Path, report: RebuildReport, model: Model, names: Names | None) -> None:
    """Check a rebuilt store, before and after a gc without a grace period."""
    with open_local_storage(directory) as storage:
        for cid in report.recovered_incomplete:  # remains of garbage in a pack
            assert storage.pins.remove(cid, report.recovered_owner or "")
        pins = [pin for pin in storage.pins.list() if not pin.owner.startswith("recovered/")]
        found = names_of(storage)
        assert replace(found, pins=frozenset(pins)) == (names or Names())
        check_sound(storage)
        check_kept(storage, model)
        assert storage.scrub().problems == ()
        storage.collect_garbage(grace_seconds=0)
        check_kept(storage, model)
        check_whole(storage, model.contents)
        assert not leftovers(directory)
        assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
        root = publish_file(storage, b"published afterwards" * 200, owner="afterwards")
        assert open_unixfs(storage.blocks, root).read() == b"published afterwards" * 200


def publish_in_pack(storage: LocalStorage, multihash: bytes, data: bytes) -> None:
    """Move an inline block to a pack, as if it had been published together with more blocks."""
    with storage._context.database.write() as connection:
        connection.execute("DELETE FROM block WHERE multihash = ?", (multihash,))
    cid = CID(1, 0x70 if data[:1] in (b"\x12", b"\x0a") else 0x55, multihash)
    with storage.publish() as publication:
        publication.put(cid, data)
        for number in range(70):
            publication.put(*raw(multihash + number.to_bytes(2, "big") * 500))
        publication.commit()


def damage(path: Path, offset: int, length: int = 1) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(length)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in old))


def put_entry(storage: LocalStorage, path: str, cid: CID) -> None:
    with storage.publish() as publication:
        publication.commit(Changes(entries=[MfsEntry("t", path, cid, 3, 3, 1)]))


def one_file(directory: Path, kind: str) -> Path:
    name = next(path for path in directory.glob("files/*/*") if (path.suffix == ".car") == (kind == "pack"))
    assert isinstance(name, Path)
    return name


def make_pack(storage: LocalStorage, count: int = 80) -> list[tuple[CID, bytes]]:
    blocks = [raw(b"pack" + number.to_bytes(2, "big") * 500) for number in range(count)]
    publish_blocks(storage, *(block for _, block in blocks), owner="pack")
    return blocks


def remember_all(storage: LocalStorage) -> dict[str, list[Any]]:
    return {
        "pins": [(pin.owner, pin.cid, pin.state) for pin in storage.pins.list()],
        "refs": [(ref.name, ref.cid, ref.version) for ref in storage.refs.list()],
        "entries": [(entry.path, entry.cid, entry.mtime_ns) for entry in storage.entries.walk("mlflow", "")],
        "frozen": [(item.root, item.path, item.cid) for item in storage.entries.list_frozen()],
        "notes": list(storage.notes.list().items()),
    }
