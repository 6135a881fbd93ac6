"""What every store refuses, and in which words: nobody can tell from an error which store he uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.content.blocks.base import MAX_BLOCK_BYTES
from mlflow_ipfs.errors import ConflictError, InvalidDataError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.pins import Pin
    from mlflow_ipfs.content.names.refs import Ref


def check_block_size(cid: CID, data: bytes) -> None:
    """Refuse a block that no other node would take.

    Raises:
        InvalidDataError: it has more than ``MAX_BLOCK_BYTES``.
    """
    if len(data) > MAX_BLOCK_BYTES:
        msg = f"the block {cid} has {len(data)} bytes, more than the {MAX_BLOCK_BYTES} that IPFS nodes take"
        raise InvalidDataError(msg)


def check_ref_version(name: str, found: Ref | None, expected_version: int) -> None:
    """Refuse to change a ref that somebody else has changed.

    Raises:
        ConflictError: its version is another one; that of a ref which is not there is 0.
    """
    version = found.version if found else 0
    if version != expected_version:
        msg = (
            f"the ref {name!r} has version {version}, not {expected_version}: somebody changed it first; read it again"
        )
        raise ConflictError(msg)


def unknown_root(cid: CID) -> NotFoundError:
    """Nothing gets a name that is not there."""
    return NotFoundError(f"{cid} is not in the store, so nothing can be made to refer to it: add it first")


def unknown_ref(name: str) -> NotFoundError:
    """There is no such ref."""
    return NotFoundError(f"there is no ref {name!r}")


def unknown_pin(pin: Pin) -> NotFoundError:
    """There is no such pin in that state."""
    return NotFoundError(f"there is no {pin.state.value} pin of {pin.cid} by {pin.owner!r}")


def directory_in_the_way(root: str, path: str) -> ConflictError:
    """A file is to be put where the entries of ``mfs://`` imply a directory."""
    return ConflictError(f"mfs://{root}/{path} is a directory, so no file can be put there")


def file_in_the_way(root: str, path: str) -> ConflictError:
    """A file is to be put below another one."""
    return ConflictError(f"mfs://{root}/{path} is a file, so nothing can be put below it")


def destination_exists(destination: Path) -> ConflictError:
    """A file of the store is not placed over another one."""
    return ConflictError(f"{str(destination)!r} exists, so nothing was put there")
