"""Execution of functions as an ordinary user, even when the tests run as root.

File permissions do not restrict root, so tests of unreadable files or read-only directories are meaningless as root.
The function runs in a forked child that has given up root permanently. The ordinary user may be unable to read the
directory of Python's libraries. Therefore import everything that the function needs before the call.
"""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534  # the unprivileged user by convention of Linux distributions and of NFS

P = ParamSpec("P")
T = TypeVar("T")


class ChildError(AssertionError):
    """Error that the function raised an exception that cannot be pickled, or that the child died."""


@dataclass(frozen=True)
class OrdinaryUser:
    """Ordinary user with a directory.

    Attributes:
        directory: directory that the user owns; empty at the start.
        uid: user id. It is used only if the tests run as root; otherwise functions run as the current user.
        gid: group id of the only group; used only if the tests run as root.
    """

    directory: Path
    uid: int = NOBODY
    gid: int = NOBODY

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function as this user in a child process.

        Returns:
            The return value of the function, which is passed through pickle.

        Raises:
            ChildError: the child died, or did not answer within 60 s.
            Exception: the exception that the function raised.
        """
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _run_child(writer, lambda: function(*args, **kwargs), self.uid, self.gid)
        os.close(writer)
        try:
            answer = _read_all(reader, child)
        finally:
            os.close(reader)
            os.waitpid(child, 0)
        if not answer:
            msg = "the child process died without an answer"
            raise ChildError(msg)
        ok, value = pickle.loads(answer)
        if ok:
            return cast("T", value)
        raise value


def make_ordinary_user() -> Iterator[OrdinaryUser]:
    """Make a user and its directory, for a fixture. The directory is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-ipfs-test-"))
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    try:
        yield OrdinaryUser(directory)
    finally:
        _make_removable(directory)
        shutil.rmtree(directory)


def _run_child(writer: int, call: Callable[[], object], uid: int, gid: int) -> None:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        answer = _pickle_outcome(call)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
    except BaseException:  # noqa: BLE001 - a forked child must never continue in pytest
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _pickle_outcome(call: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((True, call()))
    except Exception as error:  # noqa: BLE001 - the parent raises it again
        try:
            data = pickle.dumps((False, error))
            pickle.loads(data)
        except Exception:  # noqa: BLE001 - some exceptions cannot be pickled, so their text is sent instead
            text = "".join(traceback.format_exception(error))
            return pickle.dumps((False, ChildError(text)))
        return data


def _read_all(reader: int, child: int, *, timeout_seconds: float = 60) -> bytes:
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([reader], [], [], timeout_seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
            msg = f"the child process gave no answer within {timeout_seconds} s"
            raise ChildError(msg)
        part = os.read(reader, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _make_removable(directory: Path) -> None:
    for path in (directory, *directory.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
