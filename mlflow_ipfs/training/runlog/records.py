"""Records of a spool: one JSON object a line. Format 1.

================  =====================================================================================
record            content
================  =====================================================================================
``metrics``       points ``[key, value, step, timestamp in ms since 1970]``, at most ``MAX_POINTS``
``params``        an object of texts
``tags``          an object of texts
``artifact``      the path in the run's artifacts, and the name of a file in the spool
``finish``        the run's status, and the time of its end in ms since 1970
================  =====================================================================================

NaN and infinity are written as ``NaN``, ``Infinity`` and ``-Infinity``, which Python's ``json`` reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mlflow_ipfs.errors import InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_POINTS: Final = 1000  # of one request: MLflow's limit (MAX_METRICS_PER_BATCH)


class Point(NamedTuple):
    """One value of one metric. ``timestamp`` is in ms since 1970."""

    key: str
    value: float
    step: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record. Exactly one of the attributes is set."""

    metrics: tuple[Point, ...] = ()
    params: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    artifact: tuple[str, str] | None = None
    finish: tuple[str, int] | None = None

    def encode(self) -> bytes:
        """Return the record as a line."""
        fields: dict[str, Any] = {
            "metrics": self.metrics,
            "params": self.params,
            "tags": self.tags,
            "artifact": self.artifact,
            "finish": self.finish,
        }
        set_fields = {name: value for name, value in fields.items() if value}
        return json.dumps(set_fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Record:
        """Parse a line.

        Raises:
            InvalidDataError: the line is not a record.
        """
        try:
            fields = json.loads(line)
            artifact, finish = fields.get("artifact"), fields.get("finish")
            return cls(
                tuple(
                    Point(str(key), float(value), int(step), int(ts))
                    for key, value, step, ts in fields.get("metrics", ())
                ),
                fields.get("params"),
                fields.get("tags"),
                (str(artifact[0]), str(artifact[1])) if artifact else None,
                (str(finish[0]), int(finish[1])) if finish else None,
            )
        except (ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            msg = f"a line of the run log is not a record ({error}): {line[:80]!r}"
            raise InvalidDataError(msg) from error


def metric_records(points: Sequence[Point]) -> Iterator[Record]:
    """Yield records for points, in order."""
    for start in range(0, len(points), MAX_POINTS):
        yield Record(metrics=tuple(points[start : start + MAX_POINTS]))
