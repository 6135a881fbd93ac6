"""Names of content on the command line (a CID, a mutable path, or an MLflow URI), and their resolution to a CID."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.artifacts.snapshots import snapshot_in_memory
from mlflow_ipfs.binding.locations import IPFS, MFS, PROXIED, IpfsPath, check_path, join_path, parse_mfs, scheme_of
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import FROZEN_PREFIX, MfsPath
from mlflow_ipfs.errors import InvalidPathError, NotFoundError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.store import ContentStore

MLFLOW_SCHEMES: Final = ("models", "runs")

_NOT_FOUND_CODES: Final = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND"})
_NOT_FOUND_TEXTS: Final = ("not found", "No versions of model")
_MODEL_ID_PREFIX: Final = "m-"  # prefix of MLflow's ids of logged models


@dataclass(frozen=True, slots=True)
class MlflowUri:
    """A ``models:/…`` or ``runs:/…`` URI, which MLflow resolves."""

    text: str


ContentName = IpfsPath | MfsPath | MlflowUri


@dataclass(frozen=True, slots=True)
class Located:
    """The location of content that was found.

    Attributes:
        store: the store to read from. For a mutable path this is an in-memory snapshot on top of the store that was
            searched.
        cid: a root CID.
        path: the path below the root.
        mutable_path: the mutable path that was snapshotted, whose directories exist in memory only; None if the
            content is frozen.
    """

    store: ContentStore
    cid: CID
    path: str = ""
    mutable_path: MfsPath | None = None

    @property
    def root(self) -> CID:
        """The CID of the content at the end of the path."""
        return self.store.resolve(self.cid, self.path)

    @property
    def name(self) -> str:
        """A file name for the content: the last component of the path, else the CID."""
        return self.path.rpartition("/")[2] or str(self.cid)


def parse_content_name(text: str) -> ContentName:
    """Parse ``<cid>[/path]``, ``/ipfs/<cid>[/path]``, ``ipfs://…``, ``mfs://…``, ``models:/…`` or ``runs:/…``.

    Raises:
        InvalidCIDError: the first component is not a CID.
        InvalidPathError: the path is malformed, or the scheme is unknown.
    """
    scheme = scheme_of(text)
    if scheme in MLFLOW_SCHEMES:
        if not text.partition(":")[2].strip("/"):
            msg = f"{text!r} has no name or id; write {scheme}:/<name or id>/…"
            raise InvalidPathError(msg)
        return MlflowUri(text)
    if scheme == MFS:
        return parse_mfs(text)
    if scheme == IPFS:
        return IpfsPath.parse(text)
    if scheme:
        known = ", ".join(f"{name}:" for name in MLFLOW_SCHEMES)
        msg = f"{text!r} has the unknown scheme {scheme}:; write a CID or one of ipfs:, mfs:, {known}"
        raise InvalidPathError(msg)
    cid, _, path = text.removeprefix("/ipfs/").partition("/")
    return IpfsPath(CID.parse(cid), check_path(path))


def locate(store: ContentStore, name: ContentName, *, tracking_uri: str | None = None) -> Located:
    """Find content by its name.

    Args:
        store: the store to search.
        name: the name of the content.
        tracking_uri: the MLflow tracking server or database that resolves ``models:/`` and ``runs:/``; None: the one
            that the environment sets.

    Raises:
        NotFoundError: MLflow or the store does not know the name, or the content is not in this store.
        InvalidPathError: MLflow cannot parse the URI.
        RemoteError: MLflow failed.
    """
    if isinstance(name, IpfsPath):
        return Located(store, name.cid, name.path)
    if isinstance(name, MfsPath):
        return _locate_mutable(store, name)
    locations = _ask_mlflow(name, tracking_uri)
    problem: NotFoundError | None = None
    for location in locations:
        try:
            return _locate_stored(store, name, location)
        except NotFoundError as error:
            problem = problem or error
    raise problem or NotFoundError(name.text)


def _locate_mutable(store: ContentStore, path: MfsPath) -> Located:
    frozen = store.files.split_frozen(path)
    if frozen is not None:
        return Located(store, *frozen)
    snapshot, cid = snapshot_in_memory(store, path)
    return Located(snapshot, cid, mutable_path=path)


def _locate_stored(store: ContentStore, name: MlflowUri, location: str) -> Located:
    """Find the content at an artifact location from MLflow's database."""
    scheme = scheme_of(location)
    if scheme == IPFS:
        found = IpfsPath.parse(location)
        return _check_here(store, name, Located(store, found.cid, found.path))
    frozen = _split_frozen(location) if scheme in {MFS, PROXIED} else None
    if frozen is not None:  # no access check is needed: MLflow's database names the CID
        return _check_here(store, name, Located(store, *frozen))
    if scheme == MFS:
        return _locate_mutable(store, parse_mfs(location))
    if scheme == PROXIED:
        # This module loads MLflow, which takes seconds; MLflow has just given the location, so it is loaded.
        from mlflow_ipfs.binding.proxied_root import find_direct_path  # noqa: PLC0415

        direct_path = find_direct_path(location)
        if direct_path is not None:
            return _locate_mutable(store, direct_path)
        msg = (
            f"{name.text} is stored by an MLflow server at {location}, which can still change, so it has no CID yet. "
            "Register a model version of it, or use the mfs:// path on the server's machine"
        )
        raise NotFoundError(msg)
    msg = f"{name.text} is stored at {location}, which is not in IPFS, so it has no CID; add its files with `mlflow-ipfs add`"
    raise NotFoundError(msg)


def _check_here(store: ContentStore, name: MlflowUri, found: Located) -> Located:
    if not store.storage.blocks.has(found.cid):
        msg = f"{name.text} is {found.cid}, which is not in this store; name the store that has it with --store"
        raise NotFoundError(msg)
    return found


def _split_frozen(location: str) -> tuple[CID, str] | None:
    """Return the CID and the path of ``…/@<cid>/path``; None if the location has no ``@<cid>`` component."""
    parts = location.split("/")
    for index, part in enumerate(parts):
        if part.startswith(FROZEN_PREFIX):
            return CID.parse(part.removeprefix(FROZEN_PREFIX)), "/".join(parts[index + 1 :])
    return None


def _ask_mlflow(name: MlflowUri, tracking_uri: str | None) -> list[str]:
    """Return the locations where MLflow looks for an artifact, in MLflow's order."""
    # MLflow takes seconds to import, and only these names need it.
    from mlflow_ipfs.binding import mlflow_compat  # noqa: PLC0415

    with _translated_errors(name):
        mlflow_compat.prepare_client(tracking_uri)
        if scheme_of(name.text) == "models":
            location, path = mlflow_compat.model_location(name.text)
            return [_join(location, path)]
        run_id, _, path = name.text.partition(":")[2].strip("/").partition("/")
        run = mlflow_compat.get_run(run_id)
        locations = [_join(str(run.info.artifact_uri), path)]
        model_name, _, rest = join_path(path).partition("/")
        model = mlflow_compat.find_logged_model(run, model_name) if model_name else None
        return [*locations, _join(str(model.artifact_location), rest)] if model is not None else locations


def _hint(name: MlflowUri) -> str:
    """Return advice for ``models:/NAME``, which MLflow interprets as the id of a logged model; else ``""``."""
    model = name.text.partition(":")[2].strip("/")
    if scheme_of(name.text) != "models" or "/" in model or "@" in model or model.startswith(_MODEL_ID_PREFIX):
        return ""
    return f"; name a version or an alias: models:/{model}/1, models:/{model}@…"


def _join(location: str, path: str) -> str:
    path = check_path(path)
    return f"{location.rstrip('/')}/{path}" if path else location


@contextmanager
def _translated_errors(name: MlflowUri) -> Iterator[None]:
    """Translate MLflow's exceptions to the errors of this package."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        yield
    except MlflowException as error:
        msg = f"{name.text}: {error.message}"
        # MLflow has no separate error code for an unknown alias or for a model without versions.
        if error.error_code in _NOT_FOUND_CODES or any(text in msg for text in _NOT_FOUND_TEXTS):
            msg += _hint(name)
            raise NotFoundError(msg) from error
        if error.error_code == "INVALID_PARAMETER_VALUE" or "Not a proper" in msg:
            raise InvalidPathError(msg) from error
        raise RemoteError(msg) from error
