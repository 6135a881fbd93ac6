"""Places of MLflow's databases: what tells a database that was moved from a copy of it.

A registry id is a row of the database, so a copy has it, too. A location is recorded outside the database, in the
store (``database_claims.py``). Two locations with one registry id are compared by these rules:

1. They are the *same* database if

   - both are files with the same path, and the host or the inode is the same too: a file that was put in the location
     of another, as by a restore, is that database; and so is the file of a container with a new host name;
   - both are files on one host with the same device and inode: renamed, or a link;
   - both have PostgreSQL's same system identifier and database oid;
   - both are other databases with the same address and name.

2. An earlier location is *gone* if this process can see that the registry id is not there any more: no file has that
   path on the same host, or the file there has another registry id or none; no database has that oid in the same
   PostgreSQL cluster, or the one that has it has another registry id or none. Then the database was moved.

3. Otherwise the earlier location is *in use*: both databases may need what the registry id has claimed. A location on
   another host, or in another PostgreSQL cluster, can't be looked at and counts as in use.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

FORMAT: Final = 1
SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A location where a database was seen.

    Attributes:
        kind: ``sqlite``, ``postgresql`` or SQLAlchemy's name for another one.
        name: the path of a file, or ``host:port/database``.
        host: name of the machine on which a file was seen; else ``""``.
        identity: ``<device>:<inode>`` of a file, ``<system identifier>/<oid>`` of a PostgreSQL database, else ``name``.
        seen_at: when it was first seen there, in seconds since 1970.
    """

    kind: str
    name: str
    host: str
    identity: str
    seen_at: int

    @property
    def key(self) -> str:
        """A short name for the location."""
        text = f"{self.kind}\0{self.name}\0{self.host}\0{self.identity}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def uri(self) -> str:
        """The location as people name it, without a user and a password."""
        return f"{self.kind}:///{self.name}" if self.kind == SQLITE else f"{self.kind}://{self.name}"

    def encode(self) -> str:
        """As it is recorded."""
        return json.dumps(asdict(self) | {"format": FORMAT})

    @classmethod
    def decode(cls, text: str) -> DatabaseLocation:
        """Read a record. One of a newer format, or a damaged one, is a location that can't be looked at."""
        try:
            fields = json.loads(text)
            kind, name, host, identity = (str(fields[key]) for key in ("kind", "name", "host", "identity"))
            return cls(kind, name, host, identity, int(fields["seen_at"]))
        except (ValueError, KeyError, TypeError):
            return cls("unknown", "?", "?", text, 0)

    def is_same(self, other: DatabaseLocation) -> bool:
        """Tell whether two locations are of the same database (rule 1)."""
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


def since(location: DatabaseLocation, earlier: DatabaseLocation) -> DatabaseLocation:
    """Return a location with the time at which the same database was first seen."""
    return replace(location, seen_at=min(location.seen_at, earlier.seen_at) or location.seen_at)


def describe(location: DatabaseLocation) -> dict[str, Any]:
    """Return a location as commands print it with ``--json``."""
    return {"uri": location.uri, "host": location.host, "seen_at": location.seen_at}
