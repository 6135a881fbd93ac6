"""Run a function as an ordinary user, also when the tests run as root.

Root reads and writes whatever it likes, so a test of an unreadable file or a read-only directory
proves nothing as root. The function runs in a forked child that has given up root for good. It
runs on what this process has imported already: the ordinary user may not be able to read the
directory where Python's libraries are, so import what the function needs before the call.
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

NOBODY = 65534  # the user without rights, by convention of Linux distributions and of NFS

P = ParamSpec("P")
T = TypeVar("T")


class ChildError(AssertionError):
    """The function raised something in the child that cannot be pickled, or the child died."""


@dataclass(frozen=True)
class OrdinaryUser:
    """An ordinary user with a directory of its own.

    Attributes:
        directory: empty at the start; the user owns it.
        uid: the user's number, if the tests run as root; else the user is the one who runs them.
        gid: the number of the only group.
    """

    directory: Path
    uid: int = NOBODY
    gid: int = NOBODY

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function as this user, in a child process.

        Returns:
            What it returned (pickled on the way).

        Raises:
            ChildError: the child died, or took more than 60 s.
            Exception: whatever the function raised.
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
    """Make a user and its directory, for a fixture; the directory goes at the end."""
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
    except BaseException:  # noqa: BLE001 - a forked child must never run on into pytest
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _pickle_outcome(call: Callable[[], object]) -> bytes:
    try:
        return pickle.dumps((True, call()))
    except Exception as error:  # noqa: BLE001 - raised again by the parent
        try:
            data = pickle.dumps((False, error))
            pickle.loads(data)
        except Exception:  # noqa: BLE001 - some exceptions do not survive pickling; their text does
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
