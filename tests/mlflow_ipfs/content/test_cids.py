"""CIDs: text in every base, binary form, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB, IDENTITY, RAW, SHA2_256, multihash_text, sha2_256_multihash
from mlflow_ipfs.content.multibase import decode_base58, decode_multibase, encode_base32, encode_base58
from mlflow_ipfs.content.varint import encode_varint
from mlflow_ipfs.errors import IntegrityError, InvalidCIDError

if TYPE_CHECKING:
    from support.kubo import KuboRepository

HELLO = CID.parse("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")  # raw, "hello world"
OLD = CID.parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")  # the empty directory

# As `ipfs cid bases --prefix` lists them, less base256emoji.
BASES = {
    "0": "base2",
    "b": "base32",
    "B": "base32upper",
    "c": "base32pad",
    "C": "base32padupper",
    "f": "base16",
    "F": "base16upper",
    "k": "base36",
    "K": "base36upper",
    "m": "base64",
    "M": "base64pad",
    "t": "base32hexpad",
    "T": "base32hexpadupper",
    "u": "base64url",
    "U": "base64urlpad",
    "v": "base32hex",
    "V": "base32hexupper",
    "z": "base58btc",
    "Z": "base58flickr",
}

_WHOLE = "bafybeiftwwgsin4w6hrc7edwn4sdkjntqvi7v7qgldq5evoougmq3hiymq"


def cids() -> st.SearchStrategy[CID]:
    digests = st.binary(min_size=32, max_size=32)
    new = st.builds(
        lambda codec, digest: CID(1, codec, sha2_256_multihash(digest)),
        st.sampled_from([RAW, DAG_PB, DAG_CBOR, 0x72, 0x129, 0x300000]),
        digests,
    )
    identity = st.binary(max_size=128).map(lambda data: CID(1, RAW, b"\0" + encode_varint(len(data)) + data))
    long_hash = st.binary(min_size=64, max_size=64).map(lambda digest: CID(1, RAW, b"\x13\x40" + digest))
    return st.one_of(digests.map(lambda digest: CID(0, DAG_PB, sha2_256_multihash(digest))), new, identity, long_hash)


@given(cid=cids(), after=st.binary(max_size=4))
def test_text_and_bytes_lead_back_to_the_same_cid(cid: CID, after: bytes) -> None:
    assert CID.parse(str(cid)) == cid
    assert CID.from_bytes(bytes(cid)) == cid
    assert CID.decode(bytes(cid) + after) == (cid, len(bytes(cid)))
    assert str(cid) in repr(cid)


def in_positional(data: bytes, prefix: str) -> str:
    """Write bytes in base36 or base58 with the textbook's method, to compare with."""
    digits = {
        "k": "0123456789abcdefghijklmnopqrstuvwxyz",
        "K": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "z": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
        "Z": "123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ",
    }[prefix]
    text = ""
    number = int.from_bytes(data, "big")
    while number:
        number, digit = divmod(number, len(digits))
        text = digits[digit] + text
    return digits[0] * (len(data) - len(data.lstrip(b"\0"))) + text


def in_base(data: bytes, prefix: str) -> str:
    """Multibase text by other means than ours: mostly the standard library's."""
    if prefix in "kKzZ":
        return prefix + in_positional(data, prefix)
    if prefix == "0":
        return "0" + "".join(f"{byte:08b}" for byte in data)
    encode = {
        "f": base64.b16encode,
        "b": base64.b32encode,
        "c": base64.b32encode,
        "v": base64.b32hexencode,
        "t": base64.b32hexencode,
    }.get(prefix.lower())
    if encode is not None:
        text = encode(data).decode()
        text = text if prefix.isupper() else text.lower()
        return prefix + (text if prefix in "cCtT" else text.rstrip("="))
    text = (base64.b64encode if prefix in "mM" else base64.urlsafe_b64encode)(data).decode()
    return prefix + (text if prefix in "MU" else text.rstrip("="))


@pytest.mark.parametrize("prefix", BASES)
@given(data=st.binary(max_size=70))
def test_every_base_is_read(prefix: str, data: bytes) -> None:
    assert decode_multibase(in_base(data, prefix)) == data


@pytest.mark.parametrize("prefix", BASES)
@given(body=st.text("0123456789abcdefABCDEF+/-_=zZ\u212a\u0131", max_size=20))
def test_each_text_is_the_only_one_of_its_bytes(prefix: str, body: str) -> None:
    try:
        data = decode_multibase(prefix + body)
    except InvalidCIDError:
        return
    assert in_base(data, prefix) == prefix + body


@given(text=st.text(max_size=60))
def test_any_text_is_a_cid_or_our_error(text: str) -> None:
    try:
        cid = CID.parse(text)
    except InvalidCIDError:
        return
    assert CID.parse(str(cid)) == cid


@given(data=st.one_of(st.binary(max_size=60), cids().map(bytes).flatmap(lambda data: st.just(data[:-1]))))
def test_any_bytes_are_a_cid_or_our_error(data: bytes) -> None:
    try:
        cid = CID.from_bytes(data)
    except InvalidCIDError:
        return
    assert bytes(cid) == data


@pytest.mark.kubo
@pytest.mark.parametrize("prefix", BASES)
def test_kubo_writes_it_and_we_read_it(prefix: str, kubo_v1: KuboRepository) -> None:
    for cid in (HELLO, OLD.to_v1()):
        written = kubo_v1("cid", "format", "-b", BASES[prefix], str(cid))
        assert written.startswith(prefix)
        assert CID.parse(written) == cid


@pytest.mark.kubo
def test_kubo_knows_no_base_that_we_have_not_thought_of(kubo_v1: KuboRepository) -> None:
    lines = (line.split() for line in kubo_v1("cid", "bases", "--prefix").splitlines())
    names = {words[-1] for words in lines}
    assert names.difference(BASES.values()) == {"identity", "base256emoji"}


def test_known_cids() -> None:
    assert CID.of(b"hello world") == HELLO
    assert str(CID.of(b"\n\x02\x08\x01", DAG_PB, version=0)) == str(OLD)
    assert str(OLD.to_v1()) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert HELLO.to_v1() is HELLO
    assert multihash_text(HELLO.multihash) == encode_base32(HELLO.multihash)


def test_equality_takes_version_codec_and_hash() -> None:
    assert OLD.to_v1() != OLD
    assert CID.of(b"x", RAW) != CID.of(b"x", DAG_PB)
    assert len({CID.of(b"x"), CID.of(b"x"), CID.of(b"y")}) == 2


def test_data_is_checked_against_the_hash() -> None:
    HELLO.verify(b"hello world")
    HELLO.verify(memoryview(b"hello world"))
    with pytest.raises(IntegrityError, match=str(HELLO)):
        HELLO.verify(b"hello worlD")


@pytest.mark.parametrize(
    ("code", "name", "size"),
    [
        (0x12, "sha256", 32),
        (0x13, "sha512", 64),
        (0x14, "sha3_512", 64),
        (0x15, "sha3_384", 48),
        (0x16, "sha3_256", 32),
        (0x20, "sha384", 48),
        (0xB240, "blake2b", 64),
        (0xB260, "blake2s", 32),
    ],
)
def test_hash_functions(code: int, name: str, size: int) -> None:
    digest = hashlib.new(name, b"data").digest()
    cid = CID.from_bytes(b"\x01\x55" + encode_varint(code) + bytes((size,)) + digest)
    assert cid.matches(b"data")
    assert not cid.matches(b"date")
    short = CID.from_bytes(b"\x01\x55" + encode_varint(code) + bytes((20,)) + digest[:20])
    assert short.matches(b"data")
    assert not short.matches(b"date")


@pytest.mark.kubo
@pytest.mark.parametrize("function", ["sha2-256", "sha2-512", "sha3-512", "sha3-384", "sha3-256", "blake2b-256"])
def test_hash_functions_are_those_of_kubo(function: str, kubo_v1: KuboRepository) -> None:
    text = kubo_v1("add", "-Q", "--only-hash", f"--hash={function}", stdin=b"some data")
    assert CID.parse(text).matches(b"some data")


def multihash_cid(code: int, digest: bytes, length: int | None = None) -> bytes:
    return b"\x01\x55" + encode_varint(code) + encode_varint(len(digest) if length is None else length) + digest


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends early"),
        (b"\x01", "ends early"),
        (b"\x01\x55", "ends early"),
        (b"\x01\x55\x12", "ends early"),
        (b"\x01\x55\x12\x20" + bytes(31), "ends early"),
        (b"\x12\x20" + bytes(31), "CIDv0 ends early"),
        (b"\x12\x20" + bytes(33), "follow"),
        (b"\x00\x55\x12\x20" + bytes(32), "version 0"),
        (b"\x02\x55\x12\x20" + bytes(32), "version 2"),
        (b"\x03", "version 3"),
        (b"\x81\x00\x55\x12\x20" + bytes(32), "not minimal"),
        (multihash_cid(SHA2_256, bytes(19)), "19 bytes"),
        (multihash_cid(SHA2_256, b""), "0 bytes"),
        (multihash_cid(SHA2_256, bytes(33)), "33 bytes"),
        (multihash_cid(SHA2_256, b"", length=1 << 60), "ends early"),
        (multihash_cid(0x1E, bytes(129)), "129 bytes for hash function blake3"),
        (multihash_cid(IDENTITY, bytes(129)), "129 bytes"),
    ],
)
def test_bytes_that_are_no_usable_cid(data: bytes, words: str) -> None:
    with pytest.raises(InvalidCIDError, match=words):
        CID.from_bytes(data)


@pytest.mark.parametrize(
    ("code", "size", "name"),
    [
        (0x11, 20, "sha1 (0x11)"),
        (0xD5, 16, "md5 (0xd5)"),
        (0x22, 8, "murmur3-x64-64 (0x22)"),
        (0x1E, 32, "blake3 (0x1e)"),  # nothing in the standard library computes it
        (0xB21C, 28, "blake2b-224 (0xb21c)"),
        (0xB260 + 0xC0, 32, "skein256-256 (0xb320)"),
        (0x7777, 32, "0x7777"),
    ],
)
def test_a_hash_function_that_is_not_supported_is_named(code: int, size: int, name: str) -> None:
    cid = CID.from_bytes(multihash_cid(code, bytes(size)))  # as a link: the node around it can be read
    assert not cid.is_hash_supported
    words = re.escape(f"its hash function {name} is not supported; supported are sha2-256, sha2-512,")
    with pytest.raises(InvalidCIDError, match=words) as caught:
        CID.parse(str(cid))
    assert "cut off" not in str(caught.value)
    assert ("mistyped" in str(caught.value)) == (code == 0x7777)
    for refused in (lambda: cid.matches(b""), lambda: cid.verify(b""), cid.check_hash):
        with pytest.raises(InvalidCIDError, match=words):
            refused()
    HELLO.check_hash()
    CID.from_bytes(multihash_cid(IDENTITY, b"tiny")).check_hash()


@pytest.mark.parametrize(
    ("version", "codec", "multihash"),
    [
        (0, RAW, HELLO.multihash),
        (0, DAG_CBOR, HELLO.multihash),
        (0, DAG_PB, b"\x13\x20" + bytes(32)),
        (2, RAW, b"\0\0"),
    ],
)
def test_version_0_is_for_dag_pb_and_sha2_256_only(version: int, codec: int, multihash: bytes) -> None:
    with pytest.raises(InvalidCIDError, match="version 0 is for dag-pb with sha2-256 only"):
        CID(version, codec, multihash)
    if codec != DAG_PB and version == 0:
        with pytest.raises(InvalidCIDError):
            CID.of(b"hello world", codec, version=version)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "b",
        "Q",
        "Qm",
        str(OLD)[:-1],
        str(OLD) + "1",
        "z" + str(OLD),  # a CIDv0 has no multibase prefix
        "f" + bytes(OLD).hex(),
        str(OLD).lower(),
        "B" + str(HELLO)[1:],
        "b" + str(HELLO)[1:].upper(),
        f" {HELLO}",
        f"{HELLO}\n",
        f"/ipfs/{HELLO}",
        f"ipfs://{HELLO}",
        str(HELLO)[:-1],
        str(HELLO)[:-1] + "f",  # spare bits that are not zero
        str(HELLO) + "aaaaaaaa",
        str(OLD).replace("f", "0"),  # no digit of base58
        "🚀🪐⭐💻😅❓💎🌈🌸🌚💰💍🌒😵🐶💁🤐🌎👼🙃",
        "localhost",
        "example.com",
        "..",
        "b" + "a" * 2000,
        "f 01 55 12 20" + "00" * 32,
        "\udcff",
    ],
)
def test_text_that_is_no_cid(text: str) -> None:
    with pytest.raises(InvalidCIDError):
        CID.parse(text)


def test_the_error_quotes_the_text() -> None:
    with pytest.raises(InvalidCIDError, match="'no-cid'"):
        CID.parse("no-cid")


def test_identity_cids_carry_their_block() -> None:
    cid = CID.from_bytes(multihash_cid(IDENTITY, b"tiny"))
    assert cid.identity_data == b"tiny"
    assert cid.matches(b"tiny")
    assert not cid.matches(b"Tiny")
    assert CID.from_bytes(multihash_cid(IDENTITY, b"")).identity_data == b""
    assert CID.from_bytes(multihash_cid(IDENTITY, bytes(128))).identity_data == bytes(128)
    assert HELLO.identity_data is None


@given(data=st.binary(max_size=40))
def test_base58_round_trip_keeps_leading_zeros(data: bytes) -> None:
    assert decode_base58(encode_base58(data)) == data
    assert decode_base58(encode_base58(b"\0\0" + data)) == b"\0\0" + data


@pytest.mark.parametrize(
    "text", [_WHOLE[:-1], _WHOLE[:-3], _WHOLE[:20], _WHOLE[:30] + "1" + _WHOLE[31:], "QmYwAPJzv5CZsnA625s3Xf2"]
)
def test_what_is_nearly_a_cid_may_be_cut_off_or_mistyped(text: str) -> None:
    with pytest.raises(InvalidCIDError, match="is not a CID: .*; it may be cut off or mistyped$"):
        CID.parse(text)
    with pytest.raises(InvalidCIDError) as caught:
        CID.parse("MLmodel")
    assert "mistyped" not in str(caught.value)
