"""Which blocks does a block link to? By codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content import dagcbor, dagpb
from mlflow_ipfs.content.cid import CODEC_NAMES, DAG_CBOR, DAG_PB, LIBP2P_KEY, RAW
from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.cid import CID


def links(cid: CID, block: bytes) -> Sequence[CID]:
    """The CIDs that a block links to, in order.

    Raises:
        InvalidDataError: the block breaks its codec's rules, or its codec is unknown here, so
            that nobody could say what lies below it.
    """
    if cid.codec in (RAW, LIBP2P_KEY):
        return ()
    try:
        if cid.codec == DAG_PB:
            return [link.cid for link in dagpb.decode_node(block).links]
        if cid.codec == DAG_CBOR:
            return dagcbor.links(dagcbor.decode_dagcbor(block))
    except InvalidDataError as error:
        msg = f"the block {cid} is malformed: {error}"
        raise InvalidDataError(msg) from error
    msg = f"{cid} has codec 0x{cid.codec:x}; known are {', '.join(CODEC_NAMES.values())}"
    raise InvalidDataError(msg)
