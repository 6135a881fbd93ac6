"""Paths through IPLD data: map keys and list positions inside dag-cbor and dag-json blocks, and links between blocks.

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
    """Follow names down a block of data, to the first link or to the end.

    Args:
        cid: a CID of a codec in ``DATA_CODECS``.
        block: its block.
        names: the path.

    Returns:
        What the link leads to, and how many names lead to it.

    Raises:
        NotFoundError: a map has no such key, a list no such position, or the path ends before a link.
        NotDirectoryError: the path goes on below a value that is neither map nor list.
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


def _child(value: Value, name: str, place: str) -> Value:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        keys = ", ".join(map(repr, list(value)[:_SHOWN_KEYS])) or "none"
        more = ", …" if len(value) > _SHOWN_KEYS else ""
        msg = f"the map at {place} has no key {name!r}; its keys: {keys}{more}"
        raise NotFoundError(msg)
    if isinstance(value, list):
        is_position = name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS and str(int(name)) == name
        if is_position and int(name) < len(value):
            return value[int(name)]
        msg = f"the list at {place} has {len(value)} items, counted from 0, and none at {name!r}"
        raise NotFoundError(msg)
    msg = f"{place} is {_kind(value)}, so there is no {name!r} in it"
    raise NotDirectoryError(msg)


def _kind(value: Value) -> str:
    names: dict[type, str] = {
        dict: "a map", list: "a list", str: "a string", bytes: "a byte string", bool: "a Boolean", type(None): "null"
    }  # fmt: skip
    return names.get(type(value), "a number")
