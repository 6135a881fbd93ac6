"""Findings of ``doctor``: the results of its checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    NOTE = "note"  # information that needs no action
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check.

    Attributes:
        topic: subject of the check.
        text: the result as text for users.
        state: severity of the result.
        facts: the result as values for programs.
    """

    topic: str
    text: str
    state: State = State.OK
    facts: dict[str, Any] = field(default_factory=dict)
