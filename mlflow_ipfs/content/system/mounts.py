"""Properties of the mount that a directory is on: the type of its file system, and whether it is read-only.

On network file systems, locks and SQLite's write-ahead log fail silently.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

MOUNT_TABLE: Final = Path("/proc/self/mountinfo")  # Linux; proc_pid_mountinfo(5)

_NETWORK_TYPES: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip


def file_system_type(directory: Path, mount_table: Path = MOUNT_TABLE) -> str | None:
    """Return the type of the file system that contains ``directory``, or None if this system has no mount table.

    Args:
        directory: an existing directory, as an absolute path without symlinks.
        mount_table: the list of mounts in the format of ``/proc/self/mountinfo``.
    """
    try:
        lines = mount_table.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    best: tuple[int, str] | None = None
    for line in lines:
        fields, _, rest = line.partition(" - ")
        mount_point = Path(_unescape(fields.split(" ")[4]))
        if directory.is_relative_to(mount_point):
            depth = len(mount_point.parts)
            if best is None or depth >= best[0]:  # of two mounts on one directory, the later one is visible
                best = depth, rest.split(" ")[0]
    return best[1] if best else None


def is_network_file_system(type_name: str) -> bool:
    """Return whether locks, or shared memory between processes, are unreliable on a type of file system."""
    return type_name in _NETWORK_TYPES or type_name.startswith("fuse.")


def is_read_only_mount(directory: Path) -> bool:
    """Return whether an existing directory is on a read-only mount, so that no user can write below it."""
    return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _unescape(text: str) -> str:
    """Decode the octal escapes of space, tab, newline and backslash in the mount table."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
