"""Run a command and record its duration, for the table that `make test` prints.

``timed.py NAME COMMAND…`` runs the command; ``timed.py --report`` prints the recorded durations.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

TIMINGS: Final = Path(__file__).resolve().parent.parent / ".cache" / "timings.txt"


def run_timed(name: str, command: list[str]) -> int:
    """Run the command, record its duration if it succeeds, and return its exit status."""
    started = time.monotonic()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status == 0:
        TIMINGS.parent.mkdir(exist_ok=True)
        with TIMINGS.open("a") as timings:
            timings.write(f"{time.monotonic() - started:7.1f} s  {name}\n")
    return status


def report() -> int:
    """Print the recorded durations."""
    if TIMINGS.exists():
        print("durations of the steps before the tests:")
        print(TIMINGS.read_text(), end="", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(report() if sys.argv[1:] == ["--report"] else run_timed(sys.argv[1], sys.argv[2:]))
