"""Report of the tests that could not run, with the reasons, at the end of every run.

A skipped test would look like a success. Therefore each skip is printed under NOT RUN with its reason. With ``CI=true``
or ``TESTS_STRICT=1``, the run fails if a test was skipped. ``conftest.py`` imports the two hooks.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence


def not_run(reason: str) -> NoReturn:
    """Skip the test. The reason states what is missing on this machine, and how to provide it."""
    pytest.skip(reason)


def is_strict() -> bool:
    """Return whether a test that could not run fails the run."""
    return os.environ.get("CI", "").lower() in {"1", "true"} or os.environ.get("TESTS_STRICT") == "1"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let the run fail in CI if a test could not run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and is_strict() and exitstatus == pytest.ExitCode.OK and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the reasons for which tests could not run."""
    lines = _list_not_run(terminalreporter.stats.get("skipped", []))
    if lines:
        terminalreporter.section("NOT RUN" + (": an error here" if is_strict() else ""), red=is_strict(), yellow=True)
        for line in lines:
            terminalreporter.write_line(line)


def _list_not_run(skipped: Sequence[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return one line for each reason, with the number of tests or files."""
    reasons = Counter(_find_reason(report) for report in skipped)
    return [f"NOT RUN {count:4d} x {reason}" for reason, count in sorted(reasons.items())]


def _find_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
