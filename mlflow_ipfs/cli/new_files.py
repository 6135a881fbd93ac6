"""Files and directories that commands write for the user: complete or not at all, and never over existing ones."""

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
    """Raise if a path exists already, unless ``force`` is given.

    Raises:
        ConflictError: the path exists, and ``force`` is false.
    """
    if not force and os.path.lexists(path):
        msg = f"{str(path)!r} already exists; remove it, choose another path with -o, or overwrite it with --force"
        raise ConflictError(msg)


def require_directory_above(path: Path) -> None:
    """Raise if the parent directory of a path does not exist.

    It is not created, because a missing directory is more often a mistyped name.

    Raises:
        NotFoundError: the parent does not exist.
        InvalidPathError: the parent is not a directory.
    """
    parent = path.parent
    with translate_destination_errors(path):
        if os.path.isdir(parent):  # noqa: PTH112 - never raises
            return
        if not os.path.lexists(parent):
            msg = f"the directory {str(parent)!r} does not exist; create it, or choose another path with -o"
            raise NotFoundError(msg)
    msg = f"cannot write {str(path)!r}: {str(parent)!r} is not a directory; choose another path with -o"
    raise InvalidPathError(msg)


@contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Yield the path of a draft, a file or directory that replaces ``path`` at the end and is deleted on an error.

    Raises:
        NotFoundError, InvalidPathError: the parent directory is unusable, or ``path`` cannot be replaced.
        OSError: the operating system reports an error; the error names ``path``.
    """
    require_directory_above(path)
    target = path.absolute()
    with translate_destination_errors(target):
        directory = Path(tempfile.mkdtemp(prefix=".mlflow-ipfs-", dir=target.parent))
    draft = directory / path.name
    try:
        with translate_destination_errors(target), _errors_naming(path, draft):
            yield draft
            draft.replace(target)
    finally:
        _remove_tree(directory)


@contextmanager
def _errors_naming(path: Path, draft: Path) -> Iterator[None]:
    """Replace the draft's path in error messages with the path that the user gave."""
    try:
        yield
    except MlflowIpfsError as error:
        if str(draft) not in str(error):
            raise
        raise type(error)(str(error).replace(str(draft), str(path))) from error


def _remove_tree(directory: Path) -> None:
    """Remove a directory, even if directories in it are read-only, as the content may require."""
    for parent, directories, _ in os.walk(directory):
        for name in directories:
            with suppress(OSError):
                Path(parent, name).chmod(0o700, follow_symlinks=False)
    shutil.rmtree(directory, ignore_errors=True)
