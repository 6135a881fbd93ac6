"""A few MiB set aside, to be freed when the disk is full: without any room neither reading nor gc would work."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.local.layout import Layout
    from mlflow_ipfs.content.system.disk import Disk

RESERVE_BYTES: Final = 4 << 20
_ROOM_BYTES: Final = 4 * RESERVE_BYTES  # with less than this left, the reserve isn't made anew


def free_reserve(layout: Layout, disk: Disk) -> bool:
    """Give the reserve's room back to the disk. Returns whether there was any."""
    if not layout.reserve.exists():
        return False
    disk.remove(layout.reserve)
    return True


def is_nearly_full(layout: Layout, disk: Disk) -> bool:
    """Tell whether work that needs a little room had better free the reserve first."""
    return disk.free_bytes(layout.folder) < RESERVE_BYTES


def make_reserve(layout: Layout, disk: Disk) -> None:
    """Set the reserve aside if it isn't there and the disk has room. Never fails."""
    with suppress(OSError):
        if not layout.reserve.exists() and disk.free_bytes(layout.folder) > _ROOM_BYTES:
            _allocate(layout, disk)


def _allocate(layout: Layout, disk: Disk) -> None:
    try:
        disk.allocate(layout.reserve, RESERVE_BYTES)
    except FileExistsError:  # another process was faster
        return
    except OSError:
        disk.remove(layout.reserve)
        raise
