"""Freezing: the permanent binding of a model version to one CID."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import (
    IPFS,
    MFS,
    PROXIED,
    IpfsPath,
    before_frozen,
    frozen_uri,
    join_path,
    parse_mfs,
    scheme_of,
    split_proxied,
)
from mlflow_ipfs.binding.proxied_root import find_direct_path
from mlflow_ipfs.binding.registry.content_size import sum_of_file_sizes
from mlflow_ipfs.binding.registry.version_pins import OWNER, PENDING_OWNER, Pending, VersionPins
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.errors import InvalidPathError, NotFoundError, PolicyError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.mlflow_process import Server
    from mlflow_ipfs.binding.sources import ModelSource
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

_logger = logging.getLogger(__name__)

REGISTRY_DIRECTORY: Final = "registry"  # below an experiment: content that does not come from one of its runs


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """A model whose content is pinned, so that a version of it can be registered.

    Attributes:
        cid: the directory with the file ``MLmodel``.
        size_bytes: sum of the sizes of all files in the directory.
        location: the version's ``storage_location``.
        pending: the pin that retains the content until the version has a confirmed pin.
    """

    cid: CID
    size_bytes: int
    location: str
    pending: Pending


class Freezer:
    """The procedure that finds, pins and locates the content of model versions.

    Args:
        store: the store that keeps the content.
        pins: the pins of the registry.
        registry_id: the registry id of the database.
        settings: the settings, which limit the sources that may be imported.
        server: the server that this process is a worker of; None in a client.
    """

    def __init__(
        self, store: ContentStore, pins: VersionPins, registry_id: str, *, settings: Settings, server: Server | None
    ) -> None:
        self._store = store
        self._pins = pins
        self._registry_id = registry_id
        self._settings = settings
        self._server = server

    def freeze(self, source: ModelSource) -> FrozenModel:
        """Pin the current content of a source.

        Raises:
            NotFoundError: the source has no content, or it cannot be read.
            PolicyError: this server may not read the source, or could not serve the frozen content.
            InvalidPathError: the location of the version is too long for MLflow's database.
            MlflowIpfsError: the store reports an error, such as ``IntegrityError`` or ``StoreFullError``.
        """
        try:
            return self._freeze(source.uri, source)
        except NotFoundError:
            other = source.find_other()
            if other is None:
                raise
        return self._freeze(other, source)

    def _freeze(self, uri: str, source: ModelSource) -> FrozenModel:
        scheme = scheme_of(uri)
        _logger.debug("freezing the source %r", uri)
        if scheme == MFS:
            mutable_path = parse_mfs(uri)
            self._check_stated_path(uri, mutable_path, source)
            return self._freeze_path(mutable_path, str(mutable_path))
        if scheme == PROXIED and self._server is not None:
            host, path = split_proxied(uri)
            if host in {"", self._server.host}:
                return self._freeze_path(self._destination().join(path), uri.rstrip("/"))
        direct_path = find_direct_path(uri)
        if direct_path is not None:
            return self._freeze_path(direct_path, uri.rstrip("/"))
        if scheme == IPFS:
            return self._freeze_content(uri, source)
        return self._import(uri, source)

    def _freeze_path(self, mutable_path: MfsPath, uri: str) -> FrozenModel:
        """Freeze the content at a mutable path; the version's location will start with ``uri``."""
        frozen = self._store.files.split_frozen(mutable_path)
        if frozen is None:
            owner = self._pins.pending_owner(mutable_path)
            added = self._store.files.freeze(mutable_path, owner)
            pending = Pending(Pin(owner, added.cid, PinState.PENDING), mutable_path)
            return self._frozen(added.cid, added.size_bytes, frozen_uri(uri, added.cid), pending)
        above = parse_mfs(before_frozen(str(mutable_path)))
        cid = self._store.resolve(*frozen)
        location = frozen_uri(before_frozen(uri), cid)
        return self._frozen(cid, sum_of_file_sizes(self._store, cid), location, self._pins.claim(cid, above))

    def _freeze_content(self, uri: str, source: ModelSource) -> FrozenModel:
        found = IpfsPath.parse(uri)
        self._check_readable(uri, found)
        return self._freeze_cid(self._store.resolve(found.cid, found.path), source)

    def _import(self, uri: str, source: ModelSource) -> FrozenModel:
        """Import a model that is stored outside the store, and freeze it."""
        if self._server is not None and not self._is_listed(uri):
            msg = (
                f"this server does not import {uri!r} for a client, because it would read it with the server's rights. "
                "The operator can list the prefix in MLFLOW_IPFS_IMPORT_ALLOW"
            )
            raise PolicyError(msg)
        # MLflow's download threads may still be writing when one of them fails; a cleanup error must not hide the cause.
        with tempfile.TemporaryDirectory(prefix="mlflow-ipfs-import-", ignore_cleanup_errors=True) as directory:
            try:
                path = mlflow_compat.download_foreign(uri, directory)
            except Exception as error:
                # Any error is possible, for example a missing library, an unknown scheme or an unreachable server.
                # MLflow itself would only have recorded the URI.
                msg = f"the model at {uri!r} cannot be read, so it cannot be frozen: {error}"
                raise NotFoundError(msg) from error
            # The pin protects the content from gc until it is frozen. A process that dies here leaves a pending pin.
            owner = self._pins.pending_owner(None)
            added = self._store.add(path, pin=owner)
        model = self._freeze_cid(added.cid, source)
        self._store.pins.remove(added.cid, owner)
        return model

    def _freeze_cid(self, cid: CID, source: ModelSource) -> FrozenModel:
        """Pin content that does not belong to an experiment, and freeze it at a path that clients can read."""
        owner = self._pins.pending_owner(None)
        self._store.pin(cid, owner)  # raises if any block of the content is missing
        try:
            if self._server is None or self._server.destination is None:
                mutable_path, location = None, f"{IPFS}://{cid}"
            else:
                path = join_path(self._experiment_of(source), REGISTRY_DIRECTORY, self._registry_id)
                mutable_path, location = self._destination().join(path), frozen_uri(f"{PROXIED}:/{path}", cid)
            return self._frozen(cid, sum_of_file_sizes(self._store, cid), location, self._pins.claim(cid, mutable_path))
        finally:
            self._store.pins.remove(cid, owner)

    def _frozen(self, cid: CID, size_bytes: int, location: str, pending: Pending) -> FrozenModel:
        if len(location) > mlflow_compat.MAX_LOCATION_LENGTH:
            self._pins.finish(pending)
            msg = (
                f"the model cannot be frozen: its location {location!r} has {len(location)} characters, but MLflow's "
                f"database stores at most {mlflow_compat.MAX_LOCATION_LENGTH}; use shorter directory names"
            )
            raise InvalidPathError(msg)
        _logger.debug("frozen as %s, %d bytes, at %s", cid, size_bytes, location)
        return FrozenModel(cid, size_bytes, location, pending)

    def _destination(self) -> MfsPath:
        check_destination(self._server)
        assert self._server is not None, "checked"
        return parse_mfs(str(self._server.destination))

    def _experiment_of(self, source: ModelSource) -> str:
        return str(mlflow_compat.get_run(source.run_id).info.experiment_id) if source.run_id else "0"

    def _check_stated_path(self, uri: str, mutable_path: MfsPath, source: ModelSource) -> None:
        """Raise if a client of a server names a mutable path that is not below the artifacts of its run."""
        if self._server is None or not source.stated or self._is_listed(uri):
            return
        if source.run_id:
            own = mlflow_compat.get_run(source.run_id).info.artifact_uri
            if scheme_of(own) == MFS and _is_within(mutable_path, parse_mfs(own)):
                return
        msg = (
            f"{uri!r} is not below the artifacts of the given run, so this server does not read it for a client; "
            "register runs:/<run id>/<path> or models:/<model id>"
        )
        raise PolicyError(msg)

    def _check_readable(self, uri: str, found: IpfsPath) -> None:
        """Raise if a client of a server names a CID that only model versions have pinned."""
        if self._server is None or self._is_listed(uri):
            return
        owners = (pin.owner for pin in self._store.pins.list(cid=found.cid))
        if all(owner.startswith((OWNER, PENDING_OWNER)) for owner in owners):
            msg = (
                f"{found.cid} is not pinned by a user of this server's store, so it may belong to another user's "
                "model; pin it (`mlflow-ipfs pin add`), or let the operator list the prefix in MLFLOW_IPFS_IMPORT_ALLOW"
            )
            raise PolicyError(msg)

    def _is_listed(self, uri: str) -> bool:
        if ".." in uri.split("/"):
            return False
        return any(
            uri == prefix or uri.startswith(prefix if prefix.endswith("/") else f"{prefix}/")
            for prefix in self._settings.import_allow
        )


def check_destination(server: Server | None) -> None:
    """Check that a server keeps artifacts in the store, so that it can serve the frozen content.

    Raises:
        PolicyError: it does not.
    """
    destination = server.destination if server else None
    if destination is None or scheme_of(destination) != MFS:
        msg = (
            f"the model cannot be frozen: this server keeps artifacts in {destination!r}, which is not in a store of "
            "mlflow-ipfs. Start the server with --artifacts-destination mfs://<root>"
        )
        raise PolicyError(msg)


def _is_within(mutable_path: MfsPath, directory: MfsPath) -> bool:
    return mutable_path.root == directory.root and f"{mutable_path.path}/".startswith(
        f"{directory.path}/" if directory.path else ""
    )
