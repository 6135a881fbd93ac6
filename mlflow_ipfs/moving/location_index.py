"""The present location of artifacts, found by any location that they had before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow_ipfs.binding.artifacts.artifact_places import local_path, proxied_path
from mlflow_ipfs.binding.databases.artifact_rows import COLUMNS, ArtifactKind, iterate_rows
from mlflow_ipfs.binding.databases.former_locations import read_former_locations
from mlflow_ipfs.binding.locations import IPFS, MFS, PROXIED, join_path, scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class PresentLocation:
    """The location that artifacts have now.

    Attributes:
        uri: the location.
        left_out: the name of the run, logged model or trace if its artifacts are not in the store; else None.
    """

    uri: str
    left_out: str | None


class LocationIndex:
    """All artifact locations of a database, present and former ones.

    Args:
        present: the present location of the artifacts at each location, which ``key_of`` has made a key.
        bases: the directories against which relative locations are resolved.
    """

    def __init__(self, present: Mapping[str, PresentLocation], bases: Sequence[Path]) -> None:
        self._present = present
        self.bases = bases

    @classmethod
    def read(
        cls, connection: Connection, bases: Sequence[Path], left_out: Iterable[tuple[ArtifactKind, str]]
    ) -> LocationIndex:
        """Read the locations of all runs, logged models and traces.

        Args:
            connection: the database.
            bases: the directories against which relative locations are resolved.
            left_out: kind and name of the rows whose artifacts are not in the store.
        """
        index: dict[str, PresentLocation] = {}
        former = read_former_locations(connection)
        skipped = set(left_out)
        for row in iterate_rows(connection):
            if row.kind == "model version":
                continue
            record = former.get((COLUMNS[row.kind][0], row.name))
            is_here = scheme_of(row.uri) in {MFS, IPFS, PROXIED} and (row.kind, row.name) not in skipped
            present = PresentLocation(row.uri, None if is_here else f"{row.kind} {row.name}")
            for uri in {row.uri} | ({record.location, record.place} if record is not None else set()):
                index |= dict.fromkeys(keys_of(uri, bases), present)
        return cls(index, bases)

    def find(self, uri: str) -> PresentLocation | None:
        """Return the present location of the artifacts at a location; None if no row has or had it."""
        for key in keys_of(uri, self.bases):
            above, below = key, ""
            while above:
                found = self._present.get(above)
                if found is not None:
                    return PresentLocation(f"{found.uri.rstrip('/')}/{below}".rstrip("/"), found.left_out)
                above, _, name = above.rpartition("/")
                below = join_path(name, below)
        return None

    def relocate(self, uri: str) -> str:
        """Return the present location if the artifacts at a location are in the store, else the location itself."""
        found = self.find(uri)
        return uri if found is None or found.left_out is not None else found.uri


def keys_of(uri: str, bases: Sequence[Path]) -> list[str]:
    """Return the spellings of a location under which the index has it."""
    scheme = scheme_of(uri)
    if scheme in {"", "file"}:
        path = local_path(uri)
        return [uri] if path is None else [str(base / path) for base in bases]
    path = proxied_path(uri) if scheme == PROXIED else None
    return [uri.rstrip("/") if path is None else f"{PROXIED}:/{path}"]
