"""Locations of MLflow's databases, and the rules that distinguish a moved database from a copy.

A registry id is a row of the database, so a copy has the same id. The location is recorded outside the database, in the
store (``claims.py``). Two locations with one registry id are compared by these rules:

1. Both are the *same* database if one of these is true:

   - Both are files with the same path, and the host or the inode is the same. So a file that replaced another one, as
     in a restore, is the same database, and so is the file of a container with a new host name.
   - Both are files on one host with the same device and inode: the file was renamed, or one path is a link.
   - Both are PostgreSQL databases with the same system identifier and database oid.
   - Both are databases of another kind with the same address and name.

2. An earlier location is *gone* if this process can verify that the registry id is no longer there. Then the database
   was moved. For a file: the disk of that path is mounted on the same host, and no file has that path, or that file has
   a different or no registry id. For PostgreSQL: no database of the same cluster has that oid, or that database has a different or no registry id.

3. Otherwise the earlier location is *in use*: both databases may need the content that the registry id has claimed.
   A location on another host, or in another PostgreSQL cluster, cannot be checked and counts as in use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

FORMAT: Final = 1
USE_SECONDS: Final = 3600
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A location where a database was seen.

    Attributes:
        kind: ``sqlite``, ``postgresql`` or SQLAlchemy's name of another kind of database.
        name: the path of a file, or ``host:port/database``.
        host: name of the machine on which a file was seen; else ``""``.
        identity: ``<device>:<inode>`` of a file, ``<system identifier>/<oid>`` of a PostgreSQL database, else ``name``.
        seen_at: time when the database was first seen at the location, in seconds since 1970.
        used_at: time of its latest use, exact to ``USE_SECONDS``; 0 in records of earlier versions.
    """

    kind: str
    name: str
    host: str
    identity: str
    seen_at: int
    used_at: int = 0

    @property
    def key(self) -> str:
        """A short hash that identifies the location."""
        text = f"{self.kind}\0{self.name}\0{self.host}\0{self.identity}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def uri(self) -> str:
        """The URI of the location, without user and password."""
        return f"{self.kind}:///{self.name}" if self.kind == SQLITE else f"{self.kind}://{self.name}"

    def encode(self) -> str:
        """Return the location as a JSON record."""
        return json.dumps(asdict(self) | {"format": FORMAT})

    @classmethod
    def decode(cls, text: str) -> DatabaseLocation:
        """Parse a JSON record. A damaged record becomes a location that cannot be checked (rule 3)."""
        try:
            fields = json.loads(text)
            kind, name, host, identity = (str(fields[key]) for key in ("kind", "name", "host", "identity"))
            return cls(kind, name, host, identity, int(fields["seen_at"]), int(fields.get("used_at", 0)))
        except (ValueError, KeyError, TypeError):
            return cls("unknown", "?", "?", text, 0)

    def is_same(self, other: DatabaseLocation) -> bool:
        """Return True if two locations belong to the same database (rule 1)."""
        if self.kind != other.kind:
            return False
        if self.kind != SQLITE:
            return self.identity == other.identity
        is_same_host = self.host == other.host
        if self.name == other.name:
            return is_same_host or _inode(self) == _inode(other)
        return is_same_host and self.identity == other.identity


def _inode(location: DatabaseLocation) -> str:
    return location.identity.rpartition(":")[2]


def with_first_sighting(location: DatabaseLocation, earlier: DatabaseLocation) -> DatabaseLocation:
    """Return a location with the earlier ``seen_at`` of two locations of the same database.

    ``used_at`` changes only after ``USE_SECONDS``, so that most openings have nothing to write.
    """
    is_recent = location.used_at - earlier.used_at < USE_SECONDS
    return replace(
        location,
        seen_at=min(location.seen_at, earlier.seen_at) or location.seen_at,
        used_at=earlier.used_at if is_recent else location.used_at,
    )


def describe(location: DatabaseLocation) -> dict[str, Any]:
    """Return the fields of a location for ``--json`` output."""
    return {
        "uri": location.uri,
        "host": location.host,
        "seen_at": location.seen_at,
        "used_at": location.used_at or location.seen_at,
    }
