"""Attack the store for hours: rounds of the tests marked `soak`, each round with other random numbers.

A round that failed is kept in `.cache/soak`, with its number: the same number makes the same round again, as far as
processes that race can be made to. The end, be it the time's, a failure's or Ctrl-C's, prints how much was done.
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
SECONDS_A_TEST: Final = 1800
SECONDS_TO_END: Final = 30  # for pytest, to tidy up and to write what was done, when it is interrupted
NOTHING_SELECTED: Final = 5  # pytest's exit status
INTERRUPTED: Final = 130


class Soak:
    """One run.

    Args:
        kept: a directory of its own for the output of rounds; those that ended well leave nothing there.
        options: more of pytest's.

    Attributes:
        counts: how often what was done, in all rounds.
    """

    def __init__(self, kept: Path, options: list[str]) -> None:
        self._kept = kept
        self._options = options
        self.counts: Counter[str] = Counter()

    def run_round(self, number: int, *, with_fixed: bool) -> bool:
        """Run all attacks once, and print what was done. Returns whether the store stood it."""
        began = time.monotonic()
        results, output = self._kept / f"round-{number}.xml", self._kept / f"round-{number}.txt"
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
            *("--timeout", str(SECONDS_A_TEST), f"--hypothesis-seed={number}", "-p", "no:cacheprovider"),
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
                os.killpg(process.pid, signal.SIGKILL)  # and the processes that tests have started


def _read_counts(results: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    if results.exists():
        for test in ET.parse(results).getroot().iter("testcase"):  # noqa: S314 - pytest wrote it
            counts["attacks"] += test.find("skipped") is None
            for count in test.iter("property"):
                counts[count.attrib["name"]] += int(count.attrib["value"])
    return counts


def _describe(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "nothing was done"


def main() -> int:
    """Run rounds until the time is over or one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hours", type=float, default=0, help="how long; a round that has begun is ended (0: one round)"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    arguments, options = parser.parse_known_args()  # the others are pytest's
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores the first
        signal.signal(number, signal.default_int_handler)
    kept = PROJECT / ".cache" / "soak" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    kept.mkdir(parents=True)
    soak, started, round_number, is_sound, is_interrupted = (
        Soak(kept, options),
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
        kept.rmdir()  # if nothing is in it
    outcome = "interrupted, 0 lost until then" if is_interrupted else "0 lost" if is_sound else "FAILED"
    print(f"{(time.monotonic() - started) / 3600:.2f} hours: {_describe(soak.counts)}; {outcome}")
    return INTERRUPTED if is_interrupted else 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
