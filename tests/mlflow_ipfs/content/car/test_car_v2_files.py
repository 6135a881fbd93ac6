"""CARv2: the CARv1 inside is read from any stream, and contradictions are refused."""

from __future__ import annotations

import io
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.car.format import CarReader, encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.errors import IntegrityError, InvalidDataError

PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
BLOCKS = [(CID.of(data), data) for data in (b"one", b"two" * 50)]
V1 = encode_car_header([BLOCKS[0][0]]) + b"".join(encode_car_block(*pair) for pair in BLOCKS)


def wrap(start: int = 51, size: int = len(V1), index: int = 0, payload: bytes = V1, tail: bytes = b"") -> bytes:
    return PRAGMA + struct.pack("<16sQQQ", b"", start, size, index) + bytes(max(0, start - 51)) + payload + tail


GOOD = [wrap(), wrap(start=200), wrap(start=90, index=90 + len(V1) + 7, tail=bytes(7) + b"\xff" * 30)]


@pytest.mark.parametrize("data", GOOD)
def test_the_payload_is_read_from_a_pipe(data: bytes) -> None:
    source, sink = os.pipe()
    with open(source, "rb") as file:
        with open(sink, "wb") as end:
            end.write(data)
        reader = CarReader(file)
        assert reader.roots == [BLOCKS[0][0]]
        assert list(reader) == BLOCKS


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wrap()[:50], "inside its header"),
        (wrap(start=50), "before the end of the header"),
        (wrap(size=0), "size 0"),
        (wrap(start=200)[:150], "before its payload"),
        (wrap()[:-1], "end of its payload"),
        (wrap(size=len(V1) + 1), "end of its payload"),
        (wrap(size=len(V1) - 1), "ends early"),
        (wrap(index=60), "the index"),
        (wrap(payload=wrap(), size=len(wrap())), "version 2"),
    ],
)
def test_contradictions_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        list(CarReader(io.BytesIO(data)))


@given(data=st.sampled_from(GOOD), position=st.integers(0, 500), flip=st.integers(0, 255), end=st.integers(0, 600))
def test_a_damaged_car_gives_our_error_or_right_blocks(data: bytes, position: int, flip: int, end: int) -> None:
    damaged = bytearray(data)
    damaged[position % len(data)] ^= flip
    try:
        read = list(CarReader(io.BytesIO(bytes(damaged[:end]))))
    except (InvalidDataError, IntegrityError):
        return
    assert all(cid.matches(block) for cid, block in read)
