"""Links of a block, by codec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CBOR, CODEC_NAMES, DAG_CBOR, DAG_JSON, DAG_PB, JSON, LIBP2P_KEY, RAW, codec_name
from mlflow_ipfs.content.codecs import dag_cbor, dag_pb
from mlflow_ipfs.content.codecs.dag_json import decode_dagjson
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.codecs.dag_cbor import Value

LEAF_CODECS: Final = frozenset({RAW, LIBP2P_KEY, CBOR, JSON})
"""Codecs without links. Blocks of every other codec may have links."""

DATA_CODECS: Final = frozenset({DAG_CBOR, DAG_JSON})
"""Codecs of maps, lists and scalar values, which may contain links."""

CODECS_WITH_LINKS: Final = DATA_CODECS | {DAG_PB}
"""Codecs whose links are followed."""


def links(cid: CID, block: bytes) -> Sequence[CID]:
    """Return the CIDs that a block links to, in order.

    Raises:
        InvalidDataError: the block violates the rules of its codec, or the codec is not supported.
    """
    if cid.codec in LEAF_CODECS:
        return ()
    if cid.codec == DAG_PB:
        try:
            return [link.cid for link in dag_pb.decode_node(block).links]
        except InvalidDataError as error:
            raise _malformed(cid, error) from error
    return dag_cbor.links(decode_data(cid, block))


def decode_data(cid: CID, block: bytes) -> Value:
    """Decode a block of a codec in ``DATA_CODECS``.

    Raises:
        InvalidDataError: the block violates the rules of its codec, or its codec is not in ``DATA_CODECS``.
    """
    try:
        if cid.codec == DAG_CBOR:
            return dag_cbor.decode_dagcbor(block)
        if cid.codec == DAG_JSON:
            return decode_dagjson(block)
    except InvalidDataError as error:
        raise _malformed(cid, error) from error
    msg = (
        f"{cid} has codec {codec_name(cid.codec)}, which is not supported, so the blocks below it are unknown; "
        f"supported codecs are {', '.join(CODEC_NAMES.values())}"
    )
    raise InvalidDataError(msg)


def _malformed(cid: CID, error: InvalidDataError) -> InvalidDataError:
    return InvalidDataError(f"the block {cid} is malformed: {error}")
