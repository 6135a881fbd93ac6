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
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

PROJECT: Final = Path(__file__).resolve().parent.parent
KEPT: Final = PROJECT / ".cache" / "soak"
SECONDS_A_TEST: Final = 1800


def run_round(number: int, options: list[str], *, with_fixed: bool) -> tuple[bool, Counter[str]]:
    """Run all attacks once. Returns whether the store stood it, and how often what was done."""
    results, output = KEPT / f"round-{number}.xml", KEPT / f"round-{number}.txt"
    which = "soak" if with_fixed else "soak and not fixed"
    command = [
        *(sys.executable, "-m", "pytest", "-m", which, "--timeout", str(SECONDS_A_TEST), f"--hypothesis-seed={number}"),
        *(f"--junitxml={results}", "-o", "junit_family=xunit1", "-p", "no:cacheprovider", *options),
    ]
    with output.open("w") as file:
        done = subprocess.run(
            command, cwd=PROJECT, env={**os.environ, "SOAK_ROUND": str(number)}, stdout=file, stderr=file, check=False
        )
    counts: Counter[str] = Counter()
    tests = ET.parse(results).getroot().iter("testcase") if results.exists() else ()  # noqa: S314 - pytest wrote it
    for test in tests:
        counts["attacks"] += 1
        for count in test.iter("property"):
            counts[count.attrib["name"]] += int(count.attrib["value"])
    if done.returncode == 0:
        output.unlink()
        results.unlink()
    return done.returncode == 0, counts


def describe(counts: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))


def main() -> int:
    """Run rounds until the time is over or one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hours", type=float, default=0, help="how long; a round that has begun is ended (0: one round)"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    arguments, options = parser.parse_known_args()  # the others are pytest's
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    KEPT.mkdir(parents=True, exist_ok=True)
    started, number, all_counts, is_sound = time.monotonic(), arguments.first, Counter[str](), True
    try:
        while is_sound:
            began = time.monotonic()
            is_sound, counts = run_round(number, options, with_fixed=number == arguments.first)
            all_counts += counts
            what = "nothing lost" if is_sound else f"FAILED, see {KEPT / f'round-{number}.txt'}"
            print(f"round {number}, {time.monotonic() - began:.0f} s: {describe(counts)}: {what}", flush=True)
            number += 1
            if time.monotonic() - started > arguments.hours * 3600:
                break
    except KeyboardInterrupt:
        print(f"round {number} was interrupted")
    print(
        f"{(time.monotonic() - started) / 3600:.2f} hours: {describe(all_counts)}; {'0 lost' if is_sound else 'FAILED'}"
    )
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
