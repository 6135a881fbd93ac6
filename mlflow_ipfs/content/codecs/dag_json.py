"""dag-json: IPLD data as JSON. A link is ``{"/": "<CID>"}``, bytes are ``{"/": {"bytes": "<base64>"}}``.

This module only decodes dag-json; the package never writes it. Any white space and any order of keys is accepted,
because they do not affect the links of a block.
Source: https://ipld.io/specs/codecs/dag-json/spec/
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Final, NoReturn

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_cbor import MAX_DEPTH, Value
from mlflow_ipfs.errors import InvalidCIDError, InvalidDataError

_RESERVED: Final = "/"


def decode_dagjson(data: bytes) -> Value:
    """Decode a block, which must contain exactly one value.

    Raises:
        InvalidDataError: the block is not dag-json, is nested too deeply, or has a map that is a malformed link or
            byte string.
    """
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_read_map,
            parse_constant=_reject,
            parse_float=_read_float,
            parse_int=_read_int,
        )
    except RecursionError as error:
        raise _too_deep() from error
    except InvalidDataError:
        raise
    except ValueError as error:  # not UTF-8, not JSON, or a number with too many digits
        msg = f"not dag-json: {error}"
        raise InvalidDataError(msg) from error
    _check_depth(value)
    return value


def _reject(text: str) -> NoReturn:
    msg = f"dag-json cannot represent {text}"
    raise InvalidDataError(msg)


def _read_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _reject(text)


def _read_int(text: str) -> int:
    """Return a number that fits in 64 bits: those of IPLD do, in Kubo at least."""
    number = int(text)
    return number if -(1 << 63) <= number < 1 << 64 else _reject(text)


def _read_map(pairs: list[tuple[str, Value]]) -> Value:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a dag-json map has a repeated key"
        raise InvalidDataError(msg)
    reserved = found.get(_RESERVED)
    if isinstance(reserved, str):
        _require_single(found)
        try:
            return CID.from_text(reserved)
        except InvalidCIDError as error:
            msg = f"a dag-json link has an invalid CID: {error}"
            raise InvalidDataError(msg) from error
    if isinstance(reserved, dict) and isinstance(reserved.get("bytes"), str):
        _require_single(found)
        _require_single(reserved)
        return _decode_bytes(reserved["bytes"])
    return found


def _require_single(found: dict[str, Value]) -> None:
    if len(found) != 1:
        msg = f"a dag-json link or byte string must be a map with one key, but has {len(found)} keys"
        raise InvalidDataError(msg)


def _decode_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        msg = f"dag-json bytes are not base64: {error}"
        raise InvalidDataError(msg) from error


def _check_depth(value: Value) -> None:
    """Apply the depth limit of dag-cbor, so that decoded values of both codecs can be traversed in the same way."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below = [item for item in level if isinstance(item, dict | list)]
        if not below:
            return
        level = [child for item in below for child in (item.values() if isinstance(item, dict) else item)]
    raise _too_deep()


def _too_deep() -> InvalidDataError:
    return InvalidDataError(f"a dag-json value is nested deeper than {MAX_DEPTH} levels")
