"""Paths through IPLD data: map keys and list indexes inside dag-cbor and dag-json blocks, and links between blocks.

Source: https://ipld.io/docs/data-model/pathing/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.links import decode_data
from mlflow_ipfs.errors import NotDirectoryError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.codecs.dag_cbor import Value

_SHOWN_KEYS: Final = 10
_MAX_DIGITS: Final = 10


def follow_data(cid: CID, block: bytes, names: Sequence[str]) -> tuple[CID, int]:
    """Follow a path through a block of data to its first link.

    Args:
        cid: the CID of the block, with a codec in ``DATA_CODECS``.
        block: the bytes of the block.
        names: the parts of the path.

    Returns:
        The CID of the link, and the number of names that lead to it.

    Raises:
        NotFoundError: a map lacks the key, a list lacks the index, or the path ends before a link.
        NotDirectoryError: the path continues below a value that is neither a map nor a list.
        InvalidDataError: the block is malformed.
    """
    value = decode_data(cid, block)
    for count, name in enumerate(names):
        if isinstance(value, CID):
            return value, count
        value = _child(value, name, f"{cid}{''.join(f'/{above}' for above in names[:count])}")
    if isinstance(value, CID):
        return value, len(names)
    msg = f"{cid}/{'/'.join(names)} is {_kind(value)} inside the block {cid}: name a path that ends at a link"
    raise NotFoundError(msg)


def _child(value: Value, name: str, path: str) -> Value:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        keys = ", ".join(map(repr, list(value)[:_SHOWN_KEYS])) or "none"
        more = ", …" if len(value) > _SHOWN_KEYS else ""
        msg = f"the map at {path} has no key {name!r}; its keys: {keys}{more}"
        raise NotFoundError(msg)
    if isinstance(value, list):
        is_index = name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS and str(int(name)) == name
        if is_index and int(name) < len(value):
            return value[int(name)]
        msg = f"the list at {path} has {len(value)} items, counted from 0, but no item {name!r}"
        raise NotFoundError(msg)
    msg = f"{path} is {_kind(value)}, so it has no entry {name!r}"
    raise NotDirectoryError(msg)


def _kind(value: Value) -> str:
    names: dict[type, str] = {
        dict: "a map", list: "a list", str: "a string", bytes: "a byte string", bool: "a Boolean", type(None): "null"
    }  # fmt: skip
    return names.get(type(value), "a number")
