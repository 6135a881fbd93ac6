"""Pins, refs and notes of a local store, and the transaction that gives content a name."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import USER, Pin, PinState
from mlflow_ipfs.content.names.refs import Ref
from mlflow_ipfs.content.storage.local.index import index_rows
from mlflow_ipfs.content.storage.local.publishing.promotion import promote
from mlflow_ipfs.content.storage.validation import check_ref_version, unknown_pin, unknown_ref, unknown_root

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from mlflow_ipfs.content.names.outbox import OutboxRow
    from mlflow_ipfs.content.storage.local.reading.context import StoreContext

KEY_PREFIX: Final = "note:"  # of the keys of notes in the table `meta`


class LocalNotes:
    """The notes of a local store. See ``Notes``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def set(self, key: str, value: str) -> None:
        """Write a note, replacing one with the same key."""
        with self._context.database.write() as connection:
            put_notes(connection, {key: value})

    def delete(self, key: str) -> bool:
        """Remove a note. Return whether it existed."""
        with self._context.database.write() as connection:
            deleted = connection.execute("DELETE FROM meta WHERE key = ?", (KEY_PREFIX + key,))
        return bool(deleted.rowcount)

    def list(self, prefix: str = "") -> Mapping[str, str]:
        """Return the notes whose keys start with a prefix, in order of key."""
        start = KEY_PREFIX + prefix
        with self._context.database.read() as connection:
            rows = connection.execute(
                "SELECT key, value FROM meta WHERE key >= ? AND substr(key, 1, ?) = ? ORDER BY key",
                (start, len(start), start),
            ).fetchall()
        return {key.removeprefix(KEY_PREFIX): value for key, value in rows}


@contextmanager
def naming(context: StoreContext, cid: CID) -> Iterator[sqlite3.Connection]:
    """Open a transaction that gives content a name. Triggers report the name to a running gc (see ``gc/barrier.py``).

    Raises:
        NotFoundError: the root block is not in the store.
        IntegrityError: blocks below the root are only in the cache, and are damaged there.
    """
    context.database.check_writable()
    with promote(context, [cid]) as connection:
        if cid.identity_data is None and not index_rows.is_known(connection, cid.multihash):
            raise unknown_root(cid)
        yield connection


def put_pin(connection: sqlite3.Connection, pin: Pin) -> None:
    """Insert the row of a pin, or set its state."""
    connection.execute(
        "INSERT INTO pin (owner, cid, state) VALUES (?, ?, ?) ON CONFLICT (owner, cid) DO UPDATE SET state = excluded.state",
        (pin.owner, bytes(pin.cid), pin.state.value),
    )


def drop_pin(connection: sqlite3.Connection, cid: CID, owner: str) -> bool:
    """Delete the row of a pin. Return whether it existed."""
    deleted = connection.execute("DELETE FROM pin WHERE owner = ? AND cid = ?", (owner, bytes(cid)))
    return bool(deleted.rowcount)


def put_notes(connection: sqlite3.Connection, notes: Mapping[str, str]) -> None:
    """Write notes, replacing those with the same keys."""
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        ((KEY_PREFIX + key, value) for key, value in notes.items()),
    )


def put_outbox(connection: sqlite3.Connection, rows: Iterable[OutboxRow]) -> None:
    """Append rows to the outbox, in order."""
    now = int(time.time())
    connection.executemany(
        "INSERT INTO outbox (target, action, cid, name, created_at) VALUES (?, ?, ?, ?, ?)",
        ((row.target, row.action, bytes(row.cid), row.name, now) for row in rows),
    )


class LocalPins:
    """The pins of a local store. See ``Pins``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def add(self, pin: Pin) -> None:
        """Add a pin, or set the state of an existing one."""
        with naming(self._context, pin.cid) as connection:
            put_pin(connection, pin)

    def replace(self, old: Pin, new: Pin) -> None:
        """Replace one pin by another in one transaction."""
        with naming(self._context, new.cid) as connection:
            deleted = connection.execute(
                "DELETE FROM pin WHERE owner = ? AND cid = ? AND state = ?",
                (old.owner, bytes(old.cid), old.state.value),
            )
            if not deleted.rowcount:
                raise unknown_pin(old)
            put_pin(connection, new)

    def remove(self, cid: CID, owner: str = USER) -> bool:
        """Remove the pin of one owner. Return whether it existed."""
        with self._context.database.write() as connection:
            return drop_pin(connection, cid, owner)

    def list(self, *, owner_prefix: str = "", cid: CID | None = None) -> Iterator[Pin]:
        """Return the pins in order of owner."""
        with self._context.database.read() as connection:
            rows = connection.execute(
                "SELECT owner, cid, state FROM pin WHERE owner >= ? AND substr(owner, 1, ?) = ?"
                " AND cid = coalesce(?, cid) ORDER BY owner, cid",
                (owner_prefix, len(owner_prefix), owner_prefix, None if cid is None else bytes(cid)),
            ).fetchall()
        return (Pin(owner, CID.from_bytes(data), PinState(state)) for owner, data, state in rows)


class LocalRefs:
    """The refs of a local store. See ``Refs``."""

    def __init__(self, context: StoreContext) -> None:
        self._context = context

    def get(self, name: str) -> Ref:
        """Return a ref."""
        with self._context.database.read() as connection:
            ref = _find_ref(connection, name)
        if ref is None:
            raise unknown_ref(name)
        return ref

    def set(self, name: str, cid: CID, *, expected_version: int) -> Ref:
        """Point a ref at a CID, if the ref still has the expected version."""
        ref = Ref(name, cid, expected_version + 1)
        with naming(self._context, cid) as connection:
            check_ref_version(name, _find_ref(connection, name), expected_version)
            connection.execute(
                "INSERT INTO ref (name, cid, version) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET cid = excluded.cid, version = excluded.version",
                (name, bytes(cid), ref.version),
            )
        return ref

    def delete(self, name: str, *, expected_version: int) -> None:
        """Remove a ref, if it still has the expected version."""
        with self._context.database.write() as connection:
            check_ref_version(name, _find_ref(connection, name), expected_version)
            connection.execute("DELETE FROM ref WHERE name = ?", (name,))

    def list(self, prefix: str = "") -> Iterator[Ref]:
        """Return the refs in order of name."""
        with self._context.database.read() as connection:
            rows = connection.execute(
                "SELECT name, cid, version FROM ref WHERE name >= ? AND substr(name, 1, ?) = ? ORDER BY name",
                (prefix, len(prefix), prefix),
            ).fetchall()
        return (Ref(name, CID.from_bytes(data), version) for name, data, version in rows)


def _find_ref(connection: sqlite3.Connection, name: str) -> Ref | None:
    row = connection.execute("SELECT cid, version FROM ref WHERE name = ?", (name,)).fetchone()
    return None if row is None else Ref(name, CID.from_bytes(row[0]), row[1])
