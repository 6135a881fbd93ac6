"""The places of ejected artifacts: which file or URI outside the store replaces a location in the store."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mlflow_ipfs.binding.locations import (
    IPFS,
    MFS,
    PROXIED,
    IpfsPath,
    before_frozen,
    check_path,
    join_path,
    parse_mfs,
    scheme_of,
    split_proxied,
)
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import FROZEN_PREFIX, MfsPath
from mlflow_ipfs.errors import InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation

STORED_SCHEMES: Final = frozenset({IPFS, MFS, PROXIED})
FROZEN_DIRECTORY: Final = "frozen"  # beside a run's directory ``artifacts``: the versions that differ from it
CONTENT_DIRECTORY: Final = "0/registry"  # for content without a run: the directory that a server uses, too
_ARTIFACTS: Final = "artifacts"  # MLflow's name for the directory of the artifacts of a run, logged model or trace


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """What a location of MLflow's database means in the store.

    Attributes:
        mutable: the path in a mutable tree; None for ``ipfs://<cid>``.
        cid: the content that the location is frozen to; None if it can still change.
        inside: a path below the CID.
    """

    mutable: MfsPath | None
    cid: CID | None = None
    inside: str = ""


@dataclass(frozen=True, slots=True)
class EjectedPlaces:
    """The rule that gives each place in the store a place below a directory.

    The registry id and the path that ``mlflow-artifacts:/`` means are left out, so the directory looks as one that MLflow
    made: ``<experiment>/<run>/artifacts``.

    Attributes:
        directory: the directory, absolute.
        registry_id: the registry id of the database; None if it has none.
        base: the mutable path that ``mlflow-artifacts:/`` means; None if the database does not use it.
        for_server: write ``mlflow-artifacts:/`` locations instead of paths.
        limits: number of characters that the database stores, by table and column; a column without a limit is missing.
    """

    directory: Path
    registry_id: str | None
    base: MfsPath | None
    for_server: bool
    limits: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def find(self, uri: str) -> StoredPlace | None:
        """Return what a location means in the store; None if it means a place elsewhere.

        Raises:
            InvalidCIDError, InvalidPathError: the location is malformed.
        """
        scheme = scheme_of(uri)
        if scheme == IPFS:
            content = IpfsPath.parse(uri)
            return StoredPlace(None, content.cid, content.path)
        mutable_uri = before_frozen(uri)
        if scheme == MFS:
            mutable = parse_mfs(mutable_uri)
        elif scheme == PROXIED and self.base is not None:
            path = split_proxied(mutable_uri)[1]
            mutable = self.base.join(path) if path else self.base
        else:
            return None
        frozen, _, inside = uri[len(mutable_uri) :].strip("/").partition("/")
        cid = CID.parse(frozen.removeprefix(FROZEN_PREFIX)) if frozen else None
        return StoredPlace(mutable, cid, check_path(inside))

    def path_of(self, mutable: MfsPath) -> str:
        """Return the path, relative to the directory, for a path in a mutable tree."""
        bases = [MfsPath(mutable.root, self.registry_id)] if self.registry_id else []
        if self.base is not None:
            bases.append(self.base)
        below = [path for base in bases if (path := path_below(mutable, base)) is not None]
        return min(below, key=len) if below else join_path(mutable.root, mutable.path)

    def has_ejected(self, place: StoredPlace) -> bool:
        """Return whether files of a place are in the directory already, as an earlier call has left them."""
        return place.mutable is not None and os.path.lexists(self.directory / self.path_of(place.mutable))

    def frozen_path_of(self, place: StoredPlace) -> str:
        """Return the path, relative to the directory, for frozen content that no run has any more."""
        if place.mutable is None:
            return join_path(CONTENT_DIRECTORY, str(place.cid))
        parts = self.path_of(place.mutable).split("/")
        above = parts[: parts.index(_ARTIFACTS)] if _ARTIFACTS in parts else parts
        return join_path(*above, FROZEN_DIRECTORY, str(place.cid))

    def uri_of(self, path: str, former: str = "") -> str:
        """Return the new location for a path relative to the directory.

        Args:
            path: the path.
            former: the former location; if it was a server's, the new one is too.
        """
        if self.for_server or scheme_of(former) == PROXIED:
            return f"{PROXIED}:/{path}"
        target = self.directory / path
        # MLflow decodes percent signs in paths, too. A path that has none stays readable.
        return str(target) if quote(str(target)) == str(target) else target.as_uri()

    def check(self, location: ArtifactLocation, uri: str) -> None:
        """Raise if the database cannot have a new location, or MLflow cannot parse it.

        Raises:
            InvalidPathError: it is too long, or it is a server's location with a ``?`` or a ``#``.
        """
        limit = self.limits.get((location.table, location.column))
        if limit is not None and len(uri) > limit:
            msg = (
                f"{uri!r} has {len(uri)} characters, but MLflow's database stores at most {limit}; name a directory with "
                "a shorter path, or use --for-server"
            )
            raise InvalidPathError(msg)
        if scheme_of(uri) == PROXIED and ("?" in uri or "#" in uri):
            msg = (
                f"{uri!r} has a '?' or a '#', which MLflow would read as a query or a fragment; leave out --for-server"
            )
            raise InvalidPathError(msg)


def path_below(path: MfsPath, base: MfsPath) -> str | None:
    """Return the path relative to another one; None if it is not below that one."""
    if path.root != base.root:
        return None
    if not base.path or path.path == base.path:
        return path.path[len(base.path) :]
    return path.path[len(base.path) + 1 :] if path.path.startswith(f"{base.path}/") else None
