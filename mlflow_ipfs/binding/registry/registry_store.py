"""MLflow's SQL model registry, extended so that each model version is frozen to a CID."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.databases import claims
from mlflow_ipfs.binding.databases.sightings import observe
from mlflow_ipfs.binding.dataset_inputs import read_dataset_inputs
from mlflow_ipfs.binding.locations import IPFS, MFS, scheme_of
from mlflow_ipfs.binding.mlflow_compat import SqlModelVersion, SqlRegistryStore
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
from mlflow_ipfs.binding.mlflow_process import Server, ServerOptions
from mlflow_ipfs.binding.redaction import hide_secrets
from mlflow_ipfs.binding.registry import version_tags
from mlflow_ipfs.binding.registry.existing_versions import ExistingVersion, read_versions, rewrite_version
from mlflow_ipfs.binding.registry.freeze import Freezer, FrozenModel, check_destination
from mlflow_ipfs.binding.registry.frozen_versions import find_versions
from mlflow_ipfs.binding.registry.version_pins import FrozenVersion, VersionPins
from mlflow_ipfs.binding.registry_id import ensure_registry_id
from mlflow_ipfs.binding.sources import ModelSource, resolve_source
from mlflow_ipfs.config import FreezeMode, Settings
from mlflow_ipfs.errors import MlflowIpfsError, PolicyError
from mlflow_ipfs.opening import open_store, shared_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModel, RegisteredModelTag

    from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore

_logger = logging.getLogger(__name__)

_WRITERS_SECONDS: Final = 5  # MLflow inserts a version in milliseconds; a longer wait would delay a server's start
PROMPT_REASON: Final = "prompt: MLflow keeps its text in tags, so it has no files"


@dataclass(slots=True)
class _Rewrite:
    """The location to set in the next row of a model version that MLflow inserts."""

    location: str
    done: bool = False


_rewrite: ContextVar[_Rewrite | None] = ContextVar("mlflow_ipfs_rewrite", default=None)


@sqlalchemy.event.listens_for(SqlModelVersion, "before_insert")
def _set_location(mapper: object, connection: object, version: Any) -> None:  # noqa: ANN401 - an ORM object
    """Set the location in MLflow's own transaction, so that the version is never visible unfrozen."""
    del mapper, connection
    rewrite = _rewrite.get()
    if rewrite is not None:
        version.storage_location = rewrite.location
        rewrite.done = True


class FreezingRegistryStore(SqlRegistryStore):  # type: ignore[misc] # MLflow's class is not typed
    """The model registry of ``ipfs+sqlite://`` and ``ipfs+postgresql://``.

    Args:
        database_uri: MLflow's own URI of the database, ``sqlite:///…``.
        read_database_uri: the database's read replica, if any.
    """

    registry_id: str

    def __init__(self, database_uri: str, read_database_uri: str | None = None) -> None:
        mlflow_compat.prepare_database(database_uri)
        super().__init__(database_uri, read_db_uri=read_database_uri)
        self.registry_id = ensure_registry_id(self.engine)
        self._warned_of: tuple[DatabaseLocation, ...] = ()
        self._reconcile()

    def create_model_version(  # noqa: PLR0917 - MLflow's signature
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: list[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create a version, and bind it to the current content of its source."""

        def create(tags: list[ModelVersionTag] | None) -> ModelVersion:
            version: ModelVersion = super(FreezingRegistryStore, self).create_model_version(
                name, source, run_id, tags, run_link, description, local_model_path, model_id
            )
            return version

        settings = Settings.from_environment()
        if settings.freeze is FreezeMode.OFF:
            return create(version_tags.without_reserved(tags))
        if self.is_prompt(name, source, tags):
            return create(version_tags.unfrozen_tags(tags, PROMPT_REASON))
        with mlflow_errors(f"a new version of {name!r} from {source}"):
            pins = self._pins(shared_store(settings))
            try:
                found = resolve_source(source, run_id, version_location=self.get_model_version_download_uri)
                model = self._freeze(found, pins, settings)
            except (MlflowIpfsError, MlflowException, OSError) as error:
                if settings.freeze is FreezeMode.REQUIRED or _is_forbidden_content(error, source):
                    raise
                reason = hide_secrets(str(error))
                _logger.warning("a model version of %s is registered but not frozen: %s", name, reason)
                return create(version_tags.unfrozen_tags(tags, reason))
            try:
                with self._inserting_at(model.location):
                    if not settings.version_tags:
                        return create(version_tags.without_reserved(tags))
                    datasets = read_dataset_inputs(found.run_id, found.run)
                    version = create(version_tags.frozen_tags(tags, model, datasets))
                version_tags.tag_run(found.run_id, datasets)
                return version
            finally:
                pins.finish(model.pending)

    def create_registered_model(
        self,
        name: str,
        tags: list[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Create a registered model. Raise if no version of it could be frozen: the model would stay empty."""
        options = ServerOptions.current()
        is_proxied = options is not None and options.destination and scheme_of(options.artifact_root) != MFS
        if is_proxied and not _is_prompt_model(tags):
            with mlflow_errors(f"registered model {name!r}"):
                if Settings.from_environment().freeze is FreezeMode.REQUIRED:
                    check_destination(Server.current())
        created: RegisteredModel = super().create_registered_model(name, tags, description, deployment_job_id)
        return created

    def freeze_existing(
        self,
        store: ContentStore,
        settings: Settings,
        version: ExistingVersion,
        source: ModelSource,
        server: Server | None,
    ) -> FrozenModel:
        """Freeze and tag a version that was registered without this package, as ``create_model_version`` does.

        Args:
            store: the store that gets the content.
            settings: the settings; ``import_allow`` is ignored, because the operator names the source, not a client.
            version: the version.
            source: where its bytes are.
            server: the server that will serve the version; None if clients read the store themselves.

        Raises:
            ConflictError: another program changed or deleted the version meanwhile.
            MlflowIpfsError: as for ``Freezer.freeze``.
        """
        pins = self._pins(store)
        allowed = replace(settings, import_allow=(source.uri,))
        model = Freezer(store, pins, self.registry_id, settings=allowed, server=server).freeze(source)
        try:
            datasets = read_dataset_inputs(source.run_id, source.run)
            tags = version_tags.frozen_tags((), model, datasets) if settings.version_tags else []
            with self.ManagedSessionMaker(read_only=False) as session:
                rewrite_version(session, version, model.location, tags)
        finally:
            pins.finish(model.pending)
        return model

    def tag_unfrozen(self, version: ExistingVersion, reason: str) -> bool:
        """Tag an existing version as not frozen, as ``create_model_version`` does, with the reason.

        Returns:
            False if the version already has these tags.

        Raises:
            ConflictError: another program changed or deleted the version meanwhile.
        """
        tags = version_tags.unfrozen_tags((), reason)
        if {tag.key: tag.value for tag in tags}.items() <= self._tags_of(version).items():
            return False
        with self.ManagedSessionMaker(read_only=False) as session:
            rewrite_version(session, version, version.location, tags)
        return True

    def _tags_of(self, version: ExistingVersion) -> dict[str, str]:
        return dict(self.get_model_version(version.name, version.version).tags)

    def list_existing(self) -> list[ExistingVersion]:
        """Return every model version, frozen or not."""
        with self.ManagedSessionMaker() as session:
            return read_versions(session)

    def set_model_version_tag(self, name: str, version: str | int, tag: ModelVersionTag) -> None:
        """Set a tag of a version. Raise if only the registration may write the tag."""
        with mlflow_errors():
            _check_not_reserved(name, version, tag.key)
        super().set_model_version_tag(name, version, tag)

    def delete_model_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Delete a tag of a version. Raise if only the registration may write the tag."""
        with mlflow_errors():
            _check_not_reserved(name, version, key)
        super().delete_model_version_tag(name, version, key)

    def delete_model_version(self, name: str, version: str | int) -> None:
        """Delete a version, and remove its pin."""
        number = int(version) if str(version).isdigit() else None  # MLflow rejects a version that is not a number
        with mlflow_errors(f"version {version} of {name!r}"), self._changing(name, number):
            super().delete_model_version(name, version)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions, and remove their pins."""
        with mlflow_errors(f"registered model {name!r}"), self._changing(name):
            super().delete_registered_model(name)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a model, and the owners of the pins of its versions."""
        with mlflow_errors(f"registered model {name!r}"), self._changing(name):
            renamed: RegisteredModel = super().rename_registered_model(name, new_name)
            return renamed

    def _freeze(self, source: ModelSource, pins: VersionPins, settings: Settings) -> FrozenModel:
        store = shared_store(settings)
        return Freezer(store, pins, self.registry_id, settings=settings, server=Server.current()).freeze(source)

    @contextmanager
    def _inserting_at(self, location: str) -> Iterator[None]:
        rewrite = _Rewrite(location)
        token = _rewrite.set(rewrite)
        try:
            yield
        finally:
            _rewrite.reset(token)
        assert rewrite.done, (
            "MLflow inserted a model version without its ORM class; this version of it is not supported"
        )

    def is_prompt(self, name: str, source: str, tags: list[ModelVersionTag] | None) -> bool:
        """Return True if a version is a prompt: its text is in tags, and its source is MLflow's placeholder.

        The prompt tag alone is not sufficient: any client may set it, even on a model with files.
        """
        if source not in mlflow_compat.PROMPT_SOURCES:
            return False
        if _is_prompt_model(tags):
            return True
        return bool(self.get_registered_model(name)._is_prompt())  # noqa: SLF001 - MLflow's server calls it too

    @contextmanager
    def _changing(self, name: str, version: int | None = None) -> Iterator[None]:
        """Keep the pins consistent with the database while the body changes versions of a model."""
        store = shared_store()
        affected = self._find_versions(store, name=name, version=version)
        with self._pins(store).changing(affected):
            yield

    def _pins(self, store: ContentStore) -> VersionPins:
        self.registry_id = ensure_registry_id(self.engine)  # a fork may have changed it since this process started
        self._observe(store)
        return VersionPins(
            store,
            self.registry_id,
            lambda cid: self._find_versions(store, cid=cid),
            is_shared=lambda: self._observe(store).is_shared,
            await_writers=self._await_writers,
            find_forks=lambda: claims.find_forks_of(store.storage, self.registry_id),
        )

    def _await_writers(self) -> bool:
        """Wait until PostgreSQL has ended the transactions of clients that died while they committed.

        SQLite needs no wait: the transaction of a process ends with it. The lock conflicts with that of every writer, and
        with no reader.
        """
        if self.engine.dialect.name != "postgresql":
            return True
        try:
            with self.engine.begin() as connection:
                connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{_WRITERS_SECONDS}s'"))
                connection.execute(sqlalchemy.text(f"LOCK TABLE {SqlModelVersion.__tablename__} IN SHARE MODE"))
        except SQLAlchemyError as error:
            _logger.debug("pending pins are kept, because a transaction is open: %s", error)
            return False
        return True

    def _observe(self, store: ContentStore) -> claims.Sighting:
        """Record the database's location, and warn once if another database has the same id."""
        sighting = observe(store.storage, self.registry_id, self.engine)
        if sighting.others != self._warned_of:
            self._warned_of = sighting.others
            if sighting.is_shared:
                _logger.warning("%s", sighting.explain())
        return sighting

    def _find_versions(
        self, store: ContentStore, *, name: str | None = None, version: int | None = None, cid: CID | None = None
    ) -> list[FrozenVersion]:
        """Return the existing frozen versions that match."""
        with self.ManagedSessionMaker() as session:
            return find_versions(session, store, self.registry_id, name=name, version=version, cid=cid)

    def _reconcile(self) -> None:
        """Complete the changes of processes that died. The registry must open even if the store cannot be opened."""
        settings = Settings.from_environment()
        if not settings.store.exists():
            return
        try:
            with open_store(settings, create=False) as store:
                self._pins(store).reconcile()
        except Exception as error:  # noqa: BLE001 - after any error, versions can still be listed
            _logger.warning("the pins of this model registry could not be checked: %s", hide_secrets(str(error)))


def _is_prompt_model(tags: Iterable[ModelVersionTag | RegisteredModelTag] | None) -> bool:
    return any(tag.key == mlflow_compat.PROMPT_TAG and tag.value.lower() == "true" for tag in tags or ())


def _is_forbidden_content(error: Exception, source: str) -> bool:
    """Return True if a client names content of the store that the server may not read for the client.

    A version with such a location would let the client read the content, because MLflow's server sends the files of
    any version.
    """
    return isinstance(error, PolicyError) and scheme_of(source) in {MFS, IPFS}


def _check_not_reserved(name: str, version: str | int, key: str) -> None:
    """Raise if a tag describes the frozen content of a version: only the registration may write such a tag."""
    is_operator = Settings.from_environment().freeze is FreezeMode.OFF and Server.current() is None
    if key in version_tags.RESERVED and not is_operator:
        msg = (
            f"the tag {key!r} of version {version} of {name!r} cannot be changed: it is written once, when the version is "
            "registered. Use another key; the operator can change the tag without the server, with MLFLOW_IPFS_FREEZE=off"
        )
        raise PolicyError(msg)
