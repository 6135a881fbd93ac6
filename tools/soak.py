"""Attack the store for hours: run rounds of the tests marked `soak`, each with another random seed.

The output of a failed round is kept in `.cache/soak` under the number of the round. The same number repeats the same
round, as far as racing processes allow. At the end, a summary is printed, even after a failure or Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

PROJECT: Final = Path(__file__).resolve().parent.parent
SECONDS_PER_TEST: Final = 1800
SECONDS_TO_END: Final = 30  # for pytest to clean up and to write its results when it is interrupted
NOTHING_SELECTED: Final = 5  # exit status of pytest if no test was selected
INTERRUPTED: Final = 130


class Soak:
    """Soak run of one or more rounds.

    Args:
        outputs: directory for the outputs of the rounds. The outputs of successful rounds are removed.
        options: additional options for pytest.

    Attributes:
        counts: number of operations of each kind in all rounds.
    """

    def __init__(self, outputs: Path, options: list[str]) -> None:
        self._outputs = outputs
        self._options = options
        self.counts: Counter[str] = Counter()

    def run_round(self, number: int, *, with_fixed: bool) -> bool:
        """Run all attacks once and print a summary. Return whether all tests passed."""
        began = time.monotonic()
        results, output = self._outputs / f"round-{number}.xml", self._outputs / f"round-{number}.txt"
        status = INTERRUPTED
        try:
            status = self._run_pytest(number, results, output, with_fixed=with_fixed)
        finally:
            counts = _read_counts(results)
            self.counts += counts
            is_sound = status in (0, NOTHING_SELECTED)
            outcome = "nothing lost" if is_sound else f"FAILED, see {output}"
            outcome = "interrupted" if status == INTERRUPTED else outcome
            print(f"round {number}, {time.monotonic() - began:.0f} s: {_describe(counts)}: {outcome}", flush=True)
            if is_sound or status == INTERRUPTED:
                output.unlink(missing_ok=True)
                results.unlink(missing_ok=True)
        return is_sound

    def _run_pytest(self, number: int, results: Path, output: Path, *, with_fixed: bool) -> int:
        command = [
            *(sys.executable, "-m", "pytest", "-m", "soak" if with_fixed else "soak and not fixed"),
            *("--timeout", str(SECONDS_PER_TEST), f"--hypothesis-seed={number}", "-p", "no:cacheprovider"),
            *(f"--junitxml={results}", "-o", "junit_family=xunit1", *self._options),
        ]
        environment = {**os.environ, "SOAK_ROUND": str(number)}
        with output.open("w") as file:
            process = subprocess.Popen(
                command, cwd=PROJECT, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_TO_END)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also ends the processes that the tests have started


def _read_counts(results: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    if results.exists():
        for test in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it
            counts["attacks"] += test.find("skipped") is None
            for count in test.iter("property"):
                counts[count.attrib["name"]] += int(count.attrib["value"])
    return counts


def _describe(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "nothing was done"


def main() -> int:
    """Run rounds until the time is over or a round fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hours", type=float, default=0, help="duration; the last round is always completed (0: one round)"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    arguments, options = parser.parse_known_args()  # the other options are passed to pytest
    for number in (signal.SIGINT, signal.SIGTERM):  # the background job of a shell ignores SIGINT by default
        signal.signal(number, signal.default_int_handler)
    outputs = PROJECT / ".cache" / "soak" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    outputs.mkdir(parents=True)
    soak, started, round_number, is_sound, is_interrupted = (
        Soak(outputs, options),
        time.monotonic(),
        arguments.first,
        True,
        False,
    )
    try:
        while is_sound:
            is_sound = soak.run_round(round_number, with_fixed=round_number == arguments.first)
            round_number += 1
            if time.monotonic() - started > arguments.hours * 3600:
                break
    except KeyboardInterrupt:
        is_interrupted = True
    with suppress(OSError):
        outputs.rmdir()  # succeeds only if the directory is empty
    outcome = "interrupted, 0 lost until then" if is_interrupted else "0 lost" if is_sound else "FAILED"
    print(f"{(time.monotonic() - started) / 3600:.2f} hours: {_describe(soak.counts)}; {outcome}")
    return INTERRUPTED if is_interrupted else 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
