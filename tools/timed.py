"""Run a command and note how long it took, for the table that `make test` prints.

``timed.py NAME COMMAND…`` runs; ``timed.py --report`` prints what is noted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

NOTES: Final = Path(__file__).resolve().parent.parent / ".cache" / "timings.txt"


def run_timed(name: str, command: list[str]) -> int:
    """Run the command, note its time if it succeeded, and return its exit status."""
    started = time.monotonic()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status == 0:
        NOTES.parent.mkdir(exist_ok=True)
        with NOTES.open("a") as notes:
            notes.write(f"{time.monotonic() - started:7.1f} s  {name}\n")
    return status


def report() -> int:
    """Print the noted times."""
    if NOTES.exists():
        print("where the time went before the tests:")
        print(NOTES.read_text(), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(report() if sys.argv[1:] == ["--report"] else run_timed(sys.argv[1], sys.argv[2:]))
