from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, RAW

CIDS = st.builds(CID.of, st.binary(max_size=1), st.sampled_from([RAW, DAG_PB, DAG_CBOR]))


@given(cids=st.lists(CIDS, max_size=60))
def test_it_is_a_set(cids: list[CID]) -> None:
    seen, model = SeenBlocks(), set[CID]()
    for cid in cids:
        assert (cid in seen) is (cid in model)
        assert seen.add(cid) is (cid not in model)
        model.add(cid)
    assert len(seen) == len(model)


def test_the_version_of_a_cid_makes_no_difference_and_its_codec_does() -> None:
    seen = SeenBlocks()
    assert seen.add(CID.of(b"x", DAG_PB, version=0))
    assert not seen.add(CID.of(b"x", DAG_PB))
    assert seen.add(CID.of(b"x", RAW))


def test_a_block_takes_less_than_fifty_bytes() -> None:
    count = 20_000
    cids = [CID.of(number.to_bytes(4, "big")) for number in range(count)]
    tracemalloc.start()
    seen = SeenBlocks()
    assert all(seen.add(cid) for cid in cids)
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not any(seen.add(cid) for cid in cids)
    assert now <= 50 * count
    assert most <= 75 * count
