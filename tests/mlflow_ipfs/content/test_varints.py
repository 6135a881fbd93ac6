"""Unsigned varints: round trip, the limits of the spec, streams that end early."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.varint import decode_varint, encode_varint, read_varint
from mlflow_ipfs.errors import InvalidDataError

NUMBERS = st.one_of(st.integers(0, (1 << 63) - 1), st.integers(0, 62).map(lambda bits: 1 << bits))


@given(number=NUMBERS, before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_what_is_encoded_is_decoded(number: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(number)
    assert decode_varint(before + encoded + after, len(before)) == (number, len(before) + len(encoded))
    assert read_varint(io.BytesIO(encoded + after).read) == number


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (255, "ff01"), (300, "ac02"), (16384, "808001")],
)
def test_examples_of_the_specification(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded


@pytest.mark.parametrize("number", [-1, 1 << 63, 1 << 70])
def test_numbers_outside_63_bits_have_no_form(number: int) -> None:
    with pytest.raises(InvalidDataError, match="does not fit"):
        encode_varint(number)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends early"),
        (b"\x80", "ends early"),
        (b"\xff" * 8, "ends early"),
        (b"\x80\x00", "not minimal"),
        (b"\x81\x80\x00", "not minimal"),
        (b"\xff" * 9, "longer than 9"),
        (b"\x80" * 9 + b"\x01", "longer than 9"),
        (b"\x80" * 5000, "longer than 9"),
    ],
)
def test_what_breaks_the_rules_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidDataError, match=words):
        decode_varint(data)


@pytest.mark.parametrize("data", [b"\x80", b"\xff" * 8, b"\x80\x00", b"\xff" * 5000])
def test_streams_are_held_to_the_same_rules(data: bytes) -> None:
    stream = io.BytesIO(data)
    with pytest.raises(InvalidDataError):
        read_varint(stream.read)
    assert stream.tell() <= 10, "a varint without end is not read to its end"


def test_a_stream_may_end_before_a_varint() -> None:
    assert read_varint(io.BytesIO().read) is None


@given(data=st.binary(max_size=12))
def test_any_bytes_give_a_number_or_our_error(data: bytes) -> None:
    try:
        number, end = decode_varint(data)
    except InvalidDataError:
        return
    assert encode_varint(number) == data[:end]
