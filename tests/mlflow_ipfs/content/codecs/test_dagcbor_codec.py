"""dag-cbor: one form for each value; everything else is refused. Kubo's blocks are in test_golden_vectors.py."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_cbor import MAX_DEPTH, decode_dagcbor, encode_dagcbor, links
from mlflow_ipfs.errors import InvalidDataError

A, B = CID.of(b"a"), CID.of(b"b", DAG_PB, version=0)
TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=10),
    TEXT,
    st.sampled_from([A, B]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=15,
)


def same(left: Any, right: Any) -> bool:
    """Compare strictly: Python thinks that 1 == 1.0 == True."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) and (not isinstance(left, float) or math.copysign(1, left) == math.copysign(1, right))


@given(value=VALUES)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert same(decode_dagcbor(encode_dagcbor(value)), value)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_the_one_form_of_a_value_or_our_error(data: bytes) -> None:
    try:
        value = decode_dagcbor(data)
    except InvalidDataError:
        return
    assert encode_dagcbor(value) == data


@given(value=VALUES, position=st.integers(0, 1 << 16), flip=st.integers(1, 255))
def test_a_changed_block_is_another_value_or_our_error(value: Any, position: int, flip: int) -> None:
    data = bytearray(encode_dagcbor(value))
    data[position % len(data)] ^= flip
    try:
        other = decode_dagcbor(bytes(data))
    except InvalidDataError:
        return
    assert not same(other, value)


@given(value=VALUES)
def test_a_block_cut_short_is_refused(value: Any) -> None:
    data = encode_dagcbor(value)
    for end in range(len(data)):
        with pytest.raises(InvalidDataError):
            decode_dagcbor(data[:end])


@given(keys=st.lists(TEXT, unique=True, max_size=8))
def test_the_order_of_keys_does_not_matter(keys: list[str]) -> None:
    forward = encode_dagcbor(dict.fromkeys(keys, 1))
    assert encode_dagcbor(dict.fromkeys(reversed(keys), 1)) == forward
    assert list(decode_dagcbor(forward)) == sorted(keys, key=lambda key: (len(key.encode()), key.encode()))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "ends early"),
        ("1817", "shortest"),  # 23 in two bytes
        ("190018", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("5800", "shortest"),
        ("1c", "indefinite or reserved"),
        ("5f4161ff", "indefinite"),
        ("7f6161ff", "indefinite"),
        ("9f01ff", "indefinite"),
        ("bf616101ff", "indefinite"),
        ("f7", "unknown simple"),  # undefined
        ("f97e00", "less than 64 bits"),  # a 16-bit float
        ("fa3fc00000", "less than 64 bits"),
        ("fb7ff8000000000000", "not a finite"),  # NaN
        ("fb7ff0000000000000", "not a finite"),  # infinity
        ("f820", "unknown simple"),
        ("61ff", "not UTF-8"),
        ("a2616201616101", "out of order"),  # b before a
        ("a2616101616102", "repeated"),
        ("a26261610161620a", "out of order"),  # longer key first
        ("a10101", "key, but not a string"),
        ("a1416101", "key, but not a string"),
        ("a161", "ends early"),
        ("c074323031332d30332d32315432303a30343a30305a", "tag 0"),
        ("d82a01", "tag 42"),
        ("d82a6161", "tag 42"),
        ("d82a40", "multibase prefix"),
        ("d82a4101", "multibase prefix"),
        ("d82a4100", "invalid CID"),
        ("d82a" + "d82a" * 3 + "4100", "tag 42"),
        ("0000", "follow"),
        ("9b7fffffffffffffff", "ends early"),
        ("bb7fffffffffffffff", "ends early"),
        ("5b7fffffffffffffff", "ends early"),
        ("7b7fffffffffffffff", "ends early"),
    ],
)
def test_what_is_not_the_one_form_is_refused(data: str, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        decode_dagcbor(bytes.fromhex(data))


@pytest.mark.parametrize(
    "bomb",
    [b"\x81" * 100_000, b"\xa1\x61a" * 100_000, b"\xd8\x2a" * 100_000, b"\xd8\x2a\x81" * 50_000, b"\xa1" * 100_000],
    ids=["lists", "maps", "tags", "tags and lists", "maps as keys"],
)
def test_depth_bombs_do_not_reach_pythons_stack_limit(bomb: bytes) -> None:
    with pytest.raises(InvalidDataError):
        decode_dagcbor(bomb)


def test_the_limit_of_depth() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode_dagcbor(encode_dagcbor(value)) == value
    with pytest.raises(InvalidDataError, match="nested deeper"):
        encode_dagcbor([value])
    with pytest.raises(InvalidDataError, match="nested deeper"):
        decode_dagcbor(b"\x81" + encode_dagcbor(value))


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        1 << 64,
        -(1 << 64) - 1,
        {1: 2},
        {b"a": 1},
        pytest.param(object(), id="object"),
        {1, 2},
        "\ud800",
        {"\ud800": 1},
    ],
    ids=repr,
)
def test_values_without_a_form_are_refused(value: Any) -> None:
    with pytest.raises(InvalidDataError):
        encode_dagcbor(value)


def test_links_are_found_in_order() -> None:
    assert links({"x": [A, {"y": B}], "z": A, "n": 1}) == [A, B, A]
    assert links(A) == [A]
    assert links("text") == []
