"""Freezing of the model versions of an adopted database, as ``create_model_version`` freezes new ones."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from mlflow.exceptions import MlflowException

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.artifacts.artifact_places import local_path, without_user
from mlflow_ipfs.binding.locations import (
    MFS,
    PROXIED,
    before_frozen,
    cid_of_location,
    parse_mfs,
    scheme_of,
    split_proxied,
)
from mlflow_ipfs.binding.mlflow_process import Server
from mlflow_ipfs.binding.registry.registry_store import PROMPT_REASON
from mlflow_ipfs.binding.sources import ModelSource, resolve_source
from mlflow_ipfs.config import FreezeMode
from mlflow_ipfs.errors import (
    ConflictError,
    MlflowIpfsError,
    NotFoundError,
    StoreBusyError,
    StoreFormatError,
    StoreFullError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from mlflow_ipfs.binding.registry.existing_versions import ExistingVersion
    from mlflow_ipfs.binding.registry.registry_store import FreezingRegistryStore
    from mlflow_ipfs.binding.registry.unfrozen_versions import UnfrozenVersion
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore
    from mlflow_ipfs.moving.location_index import LocationIndex

_logger = logging.getLogger(__name__)

_FOLLOWED: Final = ("models", "runs")  # schemes that MLflow resolves


@dataclass(slots=True)
class VersionsReport:
    """The model versions of an adopted database.

    Attributes:
        frozen: number of versions that were frozen.
        prompts: number of prompts that were tagged; they have no files.
        left_out: for each version that is not frozen, its name and the reason.
    """

    frozen: int = 0
    prompts: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)


class VersionAdopter:
    """Freezer of the versions of one database.

    Args:
        registry: the registry of the database.
        store: the store that gets the content.
        settings: the settings.
        index: the present locations of artifacts.
        destination: the mutable path that ``mlflow-artifacts:/`` means; None if no server serves the database.
    """

    def __init__(
        self,
        registry: FreezingRegistryStore,
        store: ContentStore,
        settings: Settings,
        index: LocationIndex,
        *,
        destination: MfsPath | None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._settings = settings
        self._index = index
        self._destination = destination

    def adopt(self) -> VersionsReport:
        """Freeze every version that is not frozen yet, and those whose content the store has lost.

        Raises:
            StoreFullError, StoreBusyError, StoreFormatError: the store cannot be written to.
        """
        report = VersionsReport()
        for version in self._registry.list_existing():
            try:
                self._adopt(version, report)
            except (StoreFullError, StoreBusyError, StoreFormatError):
                raise
            except (MlflowIpfsError, MlflowException, OSError) as error:
                report.left_out.append((str(version), str(error)))
                if self._settings.freeze is FreezeMode.BEST_EFFORT:
                    with suppress(ConflictError, MlflowException):  # the version was deleted meanwhile
                        self._registry.tag_unfrozen(version, str(error))
        return report

    def _adopt(self, version: ExistingVersion, report: VersionsReport) -> None:
        frozen_to = cid_of_location(version.location)
        if frozen_to is not None:
            if not self._store.storage.blocks.has(frozen_to):
                self._freeze_again(version, frozen_to)
                report.frozen += 1
        elif self._settings.freeze is FreezeMode.OFF:
            return
        elif self._registry.is_prompt(version.name, version.source, None):
            report.prompts += self._registry.tag_unfrozen(version, PROMPT_REASON)
        else:
            source = self._find_source(version)
            _logger.debug("version %s is frozen from %s", version, source.uri)
            self._registry.freeze_existing(self._store, self._settings, version, source, self._server(source))
            report.frozen += 1

    def _freeze_again(self, version: ExistingVersion, frozen_to: CID) -> None:
        """Freeze a version whose content a store has lost, if its files are in the store again.

        Raises:
            NotFoundError: the files at its path are missing, or have other content.
        """
        uri = before_frozen(version.location)
        path = parse_mfs(uri) if scheme_of(uri) == MFS else None
        if scheme_of(uri) == PROXIED and self._destination is not None:
            path = self._destination.join(split_proxied(uri)[1])
        if path is None or not self._has_content(path, frozen_to):
            msg = f"it is frozen to {frozen_to}, which is not in this store; name the store that has it with --store"
            raise NotFoundError(msg)
        source = ModelSource(uri, stated=False, run_id=_existing_run(version.run_id))
        self._registry.freeze_existing(self._store, self._settings, version, source, self._server(source))

    def _has_content(self, path: MfsPath, cid: CID) -> bool:
        try:
            return self._store.files.snapshot(path, only_hash=True).cid == cid
        except NotFoundError:
            return False

    def _find_source(self, version: ExistingVersion) -> ModelSource:
        """Return the present locations of a version's files.

        Raises:
            NotFoundError: the files are in a run or logged model that was left out, or a local path does not exist.
            MlflowException: MLflow does not know the run or logged model that the version names.
        """
        source = ModelSource(version.location, stated=False, run_id=version.run_id)
        for uri in (version.location, version.source):
            if scheme_of(uri) in _FOLLOWED:
                found = resolve_source(
                    uri, version.run_id, version_location=self._registry.get_model_version_download_uri
                )
                base = found if uri == version.location else source
                source = replace(base, stated=False, run=None, run_id=source.run_id or found.run_id)
        find_other = source.find_other

        def locate_other() -> str | None:
            other = find_other()
            return None if other is None else self._locate(other)

        uri, run_id = self._locate(source.uri), _existing_run(source.run_id)
        return replace(source, uri=uri, run_id=run_id, find_other=locate_other)

    def _locate(self, uri: str) -> str:
        """Return the present location of files that the database located at a URI.

        Raises:
            NotFoundError: the files are in a run or logged model that was left out, or a local path does not exist.
        """
        found = self._index.find(uri)
        if found is None:
            return _find_foreign(uri, self._index)
        if found.left_out is not None:
            raise NotFoundError(_explain_left_out(found.left_out))
        return found.uri

    def _server(self, source: ModelSource) -> Server | None:
        """Return the server that will serve a version; None if clients read the store themselves."""
        if self._destination is None:
            return None
        host = split_proxied(source.uri)[0] if scheme_of(source.uri) == PROXIED else ""
        return Server(str(self._destination), host)


def preview_versions(
    versions: Iterable[UnfrozenVersion], index: LocationIndex, left_out: AbstractSet[str]
) -> VersionsReport:
    """Return what ``VersionAdopter`` would do, as far as locations show it.

    Args:
        versions: the versions that are not frozen.
        index: the present locations of artifacts, before the adoption.
        left_out: kind and name of the rows that would be left out.
    """
    report = VersionsReport()
    for version in versions:
        try:
            reason = _preview(version.location, index, left_out)
        except NotFoundError as error:
            reason = str(error)
        if reason is None:
            report.frozen += 1
        else:
            report.left_out.append((f"{version.name}/{version.version}", reason))
    return report


def _preview(uri: str, index: LocationIndex, left_out: AbstractSet[str]) -> str | None:
    """Return the reason why a version at a location would be left out, if its location shows one."""
    found = index.find(uri)
    if found is not None:
        return _explain_left_out(found.left_out) if found.left_out in left_out else None
    if scheme_of(uri) not in _FOLLOWED:
        _find_foreign(uri, index)
    name = f"run {uri.partition(':')[2].strip('/').partition('/')[0]}"
    return _explain_left_out(name) if scheme_of(uri) == "runs" and name in left_out else None


def _find_foreign(uri: str, index: LocationIndex) -> str:
    """Return the location of files that belong to no run or logged model; a local path becomes absolute.

    Raises:
        NotFoundError: a local path does not exist.
    """
    path = local_path(uri) if scheme_of(uri) in {"", "file"} else None
    if path is None:
        return uri
    found = next((base / path for base in index.bases if (base / path).exists()), None)
    if found is None:
        msg = f"its files were at {without_user(uri)}, which does not exist; put them back, or delete the version"
        raise NotFoundError(msg)
    return str(found)


def _explain_left_out(name: str | None) -> str:
    return f"its files are in {name}, which was left out; adopt again when that is in the store"


def _existing_run(run_id: str | None) -> str | None:
    """Return the id of a run if the run exists, else None: MLflow keeps versions of runs that were deleted."""
    try:
        return str(mlflow_compat.get_run(run_id).info.run_id) if run_id else None
    except MlflowException:
        return None
