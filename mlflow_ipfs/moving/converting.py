"""Conversion of locations between ``mfs://``, for clients without a server, and ``mlflow-artifacts:/``, for a server.

Both spellings mean the same files of the store, so nothing is copied, and programs that know the former location go on
with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_ipfs.binding.database_forks import find_base
from mlflow_ipfs.binding.databases.artifact_locations import ArtifactLocation, read_locations, write_locations
from mlflow_ipfs.binding.databases.connections import opened_database, shown_uri
from mlflow_ipfs.binding.locations import (
    IPFS,
    MFS,
    PROXIED,
    IpfsPath,
    before_frozen,
    join_path,
    parse_mfs,
    scheme_of,
    split_proxied,
)
from mlflow_ipfs.binding.registry_id import read_registry_id
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError, MlflowIpfsError, NotFoundError, SettingsError
from mlflow_ipfs.moving.ejected_places import CONTENT_DIRECTORY, path_below

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import URL

    from mlflow_ipfs.content.store import ContentStore

Target = Literal["server", "direct"]

_MAX_PASSES: Final = 5  # over the database: each takes the rows that were made during the one before


@dataclass(slots=True)
class ConvertReport:
    """The result of a conversion. The names are keys of ``--json`` output.

    Attributes:
        destination: the ``--artifacts-destination`` of the server, which ``mlflow-artifacts:/`` means.
        locations: number of locations that were, or would be, changed.
        left: the reason for each location that was left.
        unlistable: files in directories that MLflow's clients refuse to list through a server.
    """

    destination: str
    locations: int = 0
    left: dict[str, str] = field(default_factory=dict)
    unlistable: list[str] = field(default_factory=list)


def convert_locations(
    url: URL,
    store: ContentStore,
    target: Target,
    *,
    destination: str | None,
    default_root: MfsPath,
    dry_run: bool = False,
) -> ConvertReport:
    """Change the locations of a database, each pass in one transaction.

    Args:
        url: MLflow's database.
        store: the store with its content.
        target: ``server`` for ``mlflow-artifacts:/`` locations, ``direct`` for ``mfs://`` locations.
        destination: the ``--artifacts-destination`` of the server; None: derive it from the database and the store.
        default_root: what ``mlflow-artifacts:/`` means to clients without a server.
        dry_run: change nothing.

    Raises:
        SettingsError: the database cannot be read, or the destination is not in the store or ambiguous.
        MlflowIpfsError: the database cannot be changed.
    """
    with opened_database(url) as connection:
        locations = list(read_locations(connection))
        registry_id = read_registry_id(connection)
    is_served = any(scheme_of(one.uri) == PROXIED for one in locations)
    base = find_base(locations, store, destination, registry_id) if is_served else None
    if base is None:
        base = _parse_destination(destination) or _choose_destination(locations, default_root)
    report = ConvertReport(str(base))
    converter = _Converter(base, join_path(CONTENT_DIRECTORY, registry_id), store, report, dry_run=dry_run)
    change = converter.to_server if target == "server" else converter.to_direct
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    try:
        for _ in range(_MAX_PASSES):
            with engine.begin() as connection:
                wanted = list(read_locations(connection))
                changes = [(one, uri) for one in wanted if (uri := change(one)) != one.uri]
                if dry_run:
                    report.locations = len(changes)
                    break
                changed = sum(write_locations(connection, [one], lambda _, uri=uri: uri) for one, uri in changes)  # type: ignore[misc] # mypy does not infer the type of a default
            report.locations += changed
            if not changed:
                break
    except SQLAlchemyError as error:
        shown = shown_uri(url)
        reason = getattr(error, "orig", None) or error
        msg = f"the database {shown} could not be changed ({reason}); both spellings work, so run the command again"
        raise MlflowIpfsError(msg) from error
    finally:
        engine.dispose()
    if target == "server" and report.locations:
        report.unlistable = [str(base.join(one.path)) for one in store.files.walk(base) if set("#?") & set(one.path)]
    return report


@dataclass(slots=True)
class _Converter:
    base: MfsPath
    content_path: str
    store: ContentStore
    report: ConvertReport
    dry_run: bool

    def to_server(self, location: ArtifactLocation) -> str:
        """Return the location for a server; the same location if it cannot be changed."""
        uri = location.uri
        try:
            if scheme_of(uri) == IPFS and location.column == "storage_location":
                return self._freeze_for_server(uri)
            if scheme_of(uri) != MFS:
                return uri
            mutable_uri = before_frozen(uri)
            path = path_below(parse_mfs(mutable_uri), self.base)
        except (InvalidCIDError, InvalidPathError, NotFoundError) as error:
            return self._leave(location, str(error))
        if path is None:
            return self._leave(location, f"it is not below {self.base}, and a server has one destination")
        return f"{PROXIED}:/{join_path(path, uri[len(mutable_uri) :])}"

    def to_direct(self, location: ArtifactLocation) -> str:
        """Return the location for clients without a server; the same location if it cannot be changed."""
        uri = location.uri
        if scheme_of(uri) != PROXIED:
            return uri
        mutable_uri = before_frozen(uri)
        try:
            host, path = split_proxied(mutable_uri)
            mutable = self.base.join(path) if path else self.base
        except InvalidPathError as error:
            return self._leave(location, str(error))
        if host:
            return self._leave(location, f"the artifacts are on the server {host}")
        return str(mutable) + uri[len(mutable_uri) :]

    def _freeze_for_server(self, uri: str) -> str:
        """Make immutable content readable below the destination, as for a version that a server registers."""
        content = IpfsPath.parse(uri)
        if not self.store.storage.blocks.has(content.cid):
            msg = f"{content.cid} is not in this store"
            raise NotFoundError(msg)
        above = self.base.join(self.content_path)
        if not self.dry_run:
            self.store.storage.entries.freeze(Frozen(above.root, above.path, content.cid))
        return join_path(f"{PROXIED}:/{self.content_path}/@{content.cid}", content.path)

    def _leave(self, location: ArtifactLocation, reason: str) -> str:
        self.report.left[location.uri] = reason
        return location.uri


def _parse_destination(destination: str | None) -> MfsPath | None:
    if destination is None:
        return None
    if scheme_of(destination) != MFS:
        msg = f"--artifacts-destination {destination!r} is not in the store; write mfs://<root>"
        raise SettingsError(msg)
    return parse_mfs(destination)


def _choose_destination(locations: Iterable[ArtifactLocation], default_root: MfsPath) -> MfsPath:
    """Return the destination below which the most locations are.

    The default root is preferred: clients without a server then find the same files at the new locations.
    """
    paths = []
    for location in locations:
        if scheme_of(location.uri) == MFS:
            try:
                paths.append(parse_mfs(before_frozen(location.uri)))
            except InvalidPathError:
                continue
    candidates = [default_root, *sorted({MfsPath(path.root) for path in paths}, key=str)]
    return max(
        candidates, key=lambda one: sum(path_below(path, one) is not None for path in paths)
    )  # the first of equals
