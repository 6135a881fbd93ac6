"""Private folders outside of any store, for storages that have no place for them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def make_view_folder_elsewhere() -> Path:
    """A private folder in the system's temporary folder, for a store that nothing can be written to."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-ipfs-view-"))
    atexit.register(remove_in_same_process, folder, os.getpid())
    return folder


def remove_in_same_process(folder: Path, pid: int) -> None:
    """Remove a folder at exit, but not at the exit of a forked child."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
