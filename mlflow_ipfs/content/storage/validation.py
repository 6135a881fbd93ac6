"""Checks and errors that all storages share, so that each rejects the same calls with the same messages."""

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
    """Raise if a block is too large for other IPFS nodes.

    Raises:
        InvalidDataError: the block is larger than ``MAX_BLOCK_BYTES``.
    """
    if len(data) > MAX_BLOCK_BYTES:
        msg = f"the block {cid} has {len(data)} bytes, more than the {MAX_BLOCK_BYTES} that IPFS nodes accept"
        raise InvalidDataError(msg)


def check_ref_version(name: str, found: Ref | None, expected_version: int) -> None:
    """Raise if another process has changed a ref.

    Raises:
        ConflictError: the ref does not have the expected version. The version of a ref that does not exist is 0.
    """
    version = found.version if found else 0
    if version != expected_version:
        msg = (
            f"the ref {name!r} has version {version}, not {expected_version}: another process changed it first; "
            "read it again"
        )
        raise ConflictError(msg)


def unknown_root(cid: CID) -> NotFoundError:
    """Return the error for a name whose CID is not in the store."""
    return NotFoundError(f"{cid} is not in the store, so a name cannot refer to it: add it first")


def unknown_ref(name: str) -> NotFoundError:
    """Return the error for a ref that does not exist."""
    return NotFoundError(f"the ref {name!r} does not exist")


def unknown_pin(pin: Pin) -> NotFoundError:
    """Return the error for a pin that does not exist in the given state."""
    return NotFoundError(f"{pin.owner!r} has no {pin.state.value} pin of {pin.cid}")


def directory_in_the_way(root: str, path: str) -> ConflictError:
    """Return the error for a file at a path where the entries of ``mfs://`` imply a directory."""
    return ConflictError(f"mfs://{root}/{path} is a directory, so a file cannot be stored there: use another path")


def file_in_the_way(root: str, path: str) -> ConflictError:
    """Return the error for a file below another file."""
    return ConflictError(f"mfs://{root}/{path} is a file, so nothing can be stored below it: use another path")


def changed_meanwhile(root: str, path: str) -> ConflictError:
    """Return the error for a file that is not the one that the caller saw."""
    return ConflictError(
        f"mfs://{root}/{path} was changed by another program meanwhile, and was not replaced: try again"
    )


def destination_exists(destination: Path) -> ConflictError:
    """Return the error for a destination that exists and must not be replaced."""
    return ConflictError(f"{str(destination)!r} exists and was not replaced: remove it, or use another path")
