"""The watch for temporary files sees them, with a name and without, in every process of the group."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.processes import stop_process, wait_until
from support.temporary_files import watch_temporary_files

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_HOLD = """
import sys, tempfile, time
make = {"named": tempfile.NamedTemporaryFile, "nameless": tempfile.TemporaryFile}[sys.argv[1]]
file = make(buffering=0)
file.write(bytes(int(sys.argv[2])))
time.sleep(60)
"""


def hold(directory: Path, kind: str, size_bytes: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _HOLD, kind, str(size_bytes)]
    return subprocess.Popen(command, env={"TMPDIR": str(directory)}, start_new_session=True)


@pytest.mark.parametrize("kind", ["named", "nameless"])
def test_a_temporary_file_is_seen(kind: str, tmp_path: Path) -> None:
    process = hold(tmp_path, kind, 100_000)
    try:
        with watch_temporary_files(tmp_path, process.pid) as found:
            wait_until(lambda: found, timeout_seconds=20, what="the file is seen")
    finally:
        stop_process(process)
    assert set(found.values()) == {100_000}
