"""Small blocks that are read together are what one would get one by one, errors included, and few are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.blocks.prefetching import PrefetchingReader
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import NotFoundError
from support.blocks import Blocks, import_into
from support.storages import delete_block

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path


class CountingBlocks(Blocks):
    """Counts the questions: one for a block alone, one for many together."""

    def __init__(self) -> None:
        super().__init__()
        self.questions = 0
        self.given: list[CID] = []

    def get(self, cid: CID) -> bytes:
        self.questions += 1
        self.given.append(cid)
        return super().get(cid)

    def get_many(self, cids: Sequence[CID]) -> Generator[bytes, None, None]:
        self.questions += 1
        for cid in cids:
            block = super().get(cid)
            self.given.append(cid)
            yield block


def put(blocks: Blocks, *contents: bytes) -> list[CID]:
    for content in contents:
        blocks.put(CID.of(content), content)
    return [CID.of(content) for content in contents]


def test_what_was_read_ahead_is_not_read_again() -> None:
    blocks = CountingBlocks()
    cids = put(blocks, b"a", b"b", b"c")
    ahead = PrefetchingReader(blocks)
    ahead.read_ahead([*cids, cids[0]])
    assert ahead.is_ahead(cids[2])
    assert [ahead.get(cid) for cid in cids] == [b"a", b"b", b"c"]
    assert blocks.given == cids
    assert ahead.get(cids[0]) == b"a", "it was not kept, so it is read again"
    assert len(blocks.given) == 4


def test_an_error_comes_when_its_block_is_asked_for() -> None:
    blocks = CountingBlocks()
    first, last = put(blocks, b"first", b"last")
    missing = CID.of(b"missing")
    ahead = PrefetchingReader(blocks)
    ahead.read_ahead([first, missing, last])
    assert ahead.get(first) == b"first"
    with pytest.raises(NotFoundError, match=str(missing)):
        ahead.get(missing)
    assert ahead.get(last) == b"last"


def test_sizes_that_are_a_lie_do_not_fill_the_memory() -> None:
    blocks = CountingBlocks()
    cids = put(blocks, *(bytes([number]) * (1 << 20) for number in range(60)))
    ahead = PrefetchingReader(blocks)
    ahead.read_ahead(cids)
    ahead.read_ahead(cids[30:])
    assert len(blocks.given) == 5, "no more than 4 MiB and one block"
    assert all(cid.matches(ahead.get(cid)) for cid in cids)


def test_an_export_asks_seldom_for_small_files_and_never_twice(tmp_path: Path) -> None:
    for number in range(300):
        directory = tmp_path / "source" / f"{number % 10}" / f"{number % 30}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}").write_bytes(b"%d" % number)
    blocks = CountingBlocks()
    root = import_into(blocks, tmp_path / "source").link.cid
    Exporter(blocks).export(root, tmp_path / "out")
    assert len(blocks.given) == len(set(blocks.given)) == len(blocks.by_multihash)
    assert blocks.questions < 60
    for path in (tmp_path / "source").rglob("*"):
        assert (
            path.is_dir()
            or (tmp_path / "out" / path.relative_to(tmp_path / "source")).read_bytes() == path.read_bytes()
        )


def test_what_comes_before_a_damaged_file_is_complete(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(20):
        (tmp_path / "source" / f"{number:02}").write_bytes(b"%d" % number)
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        root = store.add(tmp_path / "source").cid
        delete_block(store.storage, CID.of(b"13"))
        with pytest.raises(NotFoundError, match=str(CID.of(b"13"))):
            store.view(root, dst=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{number:02}" for number in range(13)]
