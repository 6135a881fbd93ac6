"""Asking the index about many values at once."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

VALUES: Final = "(??)"
MAX_VALUES: Final = 400  # of one statement, which may name them twice; SQLite's oldest limit is 999


def select_many(
    connection: sqlite3.Connection, query: str, values: Iterable[bytes | str | int]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query for many values, with one statement for every few hundred.

    Args:
        connection: where to ask.
        query: has ``(??)`` wherever the values are to stand.
        values: any number.
    """
    rest = iter(values)
    places = query.count(VALUES)
    while batch := list(islice(rest, MAX_VALUES)):
        marks = f"({','.join('?' * len(batch))})"
        yield from connection.execute(query.replace(VALUES, marks), batch * places).fetchall()
