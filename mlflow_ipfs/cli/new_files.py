"""What commands write for the user: all of it or nothing, and never over something that was there."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_ipfs.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterator


def refuse_existing(path: Path, *, force: bool) -> None:
    """Refuse to write where something is.

    Raises:
        ConflictError: something is there, and ``force`` is not given.
    """
    if not force and os.path.lexists(path):
        msg = f"{str(path)!r} exists; remove it, name another with -o, or write over it with --force"
        raise ConflictError(msg)


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to, which becomes ``path`` at the end, or vanishes on an error."""
    folder = Path(tempfile.mkdtemp(prefix=".mlflow-ipfs-", dir=path.absolute().parent))
    draft = folder / path.name
    try:
        yield draft
        draft.replace(path)
    finally:
        _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    """Remove a folder even if content made folders in it read-only."""
    for parent, folders, _ in os.walk(folder):
        for name in folders:
            with suppress(OSError):
                Path(parent, name).chmod(0o700, follow_symlinks=False)
    shutil.rmtree(folder, ignore_errors=True)
