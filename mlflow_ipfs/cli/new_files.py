"""What commands write for the user: all of it or nothing, and never over something that was there."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_ipfs.content.system.destination_errors import translate_destination_errors
from mlflow_ipfs.errors import ConflictError, InvalidPathError, MlflowIpfsError, NotFoundError

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


def require_directory_above(path: Path) -> None:
    """Refuse to write where there is no directory: a name is more often mistyped than a directory is to be made.

    Raises:
        NotFoundError: it is not there.
        InvalidPathError: something else is.
    """
    parent = path.parent
    with translate_destination_errors(path):
        if os.path.isdir(parent):  # noqa: PTH112 - it never raises
            return
        if not os.path.lexists(parent):
            msg = f"the directory {str(parent)!r} does not exist; make it, or name another with -o"
            raise NotFoundError(msg)
    msg = f"{str(parent)!r} is no directory, so nothing can be written below it"
    raise InvalidPathError(msg)


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """A path to write a file or a directory to, which becomes ``path`` at the end, or vanishes on an error.

    Raises:
        NotFoundError, InvalidPathError: there is no directory for it, or something is in the way.
        OSError: the system refuses it; the error names ``path``.
    """
    require_directory_above(path)
    target = path.absolute()
    with translate_destination_errors(target):
        directory = Path(tempfile.mkdtemp(prefix=".mlflow-ipfs-", dir=target.parent))
    draft = directory / path.name
    try:
        with translate_destination_errors(target), _named_as(draft, path):
            yield draft
            draft.replace(target)
    finally:
        _remove_tree(directory)


@contextmanager
def _named_as(draft: Path, path: Path) -> Iterator[None]:
    """Let errors name what the user named."""
    try:
        yield
    except MlflowIpfsError as error:
        if str(draft) not in str(error):
            raise
        raise type(error)(str(error).replace(str(draft), str(path))) from error


def _remove_tree(directory: Path) -> None:
    """Remove a directory even if content made directories in it read-only."""
    for parent, directories, _ in os.walk(directory):
        for name in directories:
            with suppress(OSError):
                Path(parent, name).chmod(0o700, follow_symlinks=False)
    shutil.rmtree(directory, ignore_errors=True)
