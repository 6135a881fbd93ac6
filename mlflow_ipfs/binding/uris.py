"""What a person types to name content: a CID, a mutable path, or an URI of MLflow's; and where that is."""

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
_MODEL_ID_PREFIX: Final = "m-"  # of the ids that MLflow gives to logged models


@dataclass(frozen=True, slots=True)
class MlflowUri:
    """``models:/…`` or ``runs:/…``: MLflow knows where that is."""

    text: str


ContentName = IpfsPath | MfsPath | MlflowUri


@dataclass(frozen=True, slots=True)
class Located:
    """Content that was found.

    Attributes:
        store: where to read it. For a mutable path this is not the store that was asked, but a
            snapshot on top of it.
        cid: a root.
        path: where below the root.
        mutable_path: the mutable path of which it is a snapshot; its directories are then in memory alone. None: it is frozen.
    """

    store: ContentStore
    cid: CID
    path: str = ""
    mutable_path: MfsPath | None = None

    @property
    def root(self) -> CID:
        """The CID of the content itself, at the end of the path."""
        return self.store.resolve(self.cid, self.path)

    @property
    def name(self) -> str:
        """What a file with the content would be called."""
        return self.path.rpartition("/")[2] or str(self.cid)


def parse_content_name(text: str) -> ContentName:
    """Read ``<cid>[/path]``, ``/ipfs/<cid>[/path]``, ``ipfs://…``, ``mfs://…``, ``models:/…`` or ``runs:/…``.

    Raises:
        InvalidCIDError: no CID stands where one must be.
        InvalidPathError: the path is malformed, or the scheme is unknown.
    """
    scheme = scheme_of(text)
    if scheme in MLFLOW_SCHEMES:
        if not text.partition(":")[2].strip("/"):
            msg = f"{text!r} names nothing; write {scheme}:/<name or id>/…"
            raise InvalidPathError(msg)
        return MlflowUri(text)
    if scheme == MFS:
        return parse_mfs(text)
    if scheme == IPFS:
        return IpfsPath.parse(text)
    if scheme:
        msg = f"{text!r}: {scheme}: is none of ipfs:, mfs:, {', '.join(f'{name}:' for name in MLFLOW_SCHEMES)}"
        raise InvalidPathError(msg)
    cid, _, path = text.removeprefix("/ipfs/").partition("/")
    return IpfsPath(CID.parse(cid), check_path(path))


def locate(store: ContentStore, name: ContentName, *, tracking_uri: str | None = None) -> Located:
    """Find content by its name.

    Args:
        store: where to look.
        name: of what.
        tracking_uri: the MLflow to ask about ``models:/`` and ``runs:/``; None: as the environment says.

    Raises:
        NotFoundError: MLflow or the store doesn't know it, or it isn't in this store.
        InvalidPathError: MLflow can't read its URI.
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
    """Find what MLflow's database names as the location of an artifact."""
    scheme = scheme_of(location)
    if scheme == IPFS:
        found = IpfsPath.parse(location)
        return _check_here(store, name, Located(store, found.cid, found.path))
    frozen = _split_frozen(location) if scheme in {MFS, PROXIED} else None
    if frozen is not None:  # who may read it is not the question: MLflow says which CID it is
        return _check_here(store, name, Located(store, *frozen))
    if scheme == MFS:
        return _locate_mutable(store, parse_mfs(location))
    if scheme == PROXIED:
        msg = (
            f"{name.text} is kept by an MLflow server as {location}, which can still change, so no CID stands for it yet. "
            "Register a model version of it, or use the server's own mfs:// path on its machine"
        )
        raise NotFoundError(msg)
    msg = f"{name.text} is at {location}, which is not in IPFS, so there is no CID for it"
    raise NotFoundError(msg)


def _check_here(store: ContentStore, name: MlflowUri, found: Located) -> Located:
    if not store.storage.blocks.has(found.cid):
        msg = f"{name.text} is {found.cid}, which is not in this store; name the one that has it with --store"
        raise NotFoundError(msg)
    return found


def _split_frozen(location: str) -> tuple[CID, str] | None:
    """Take ``…/@<cid>/path`` apart."""
    parts = location.split("/")
    for index, part in enumerate(parts):
        if part.startswith(FROZEN_PREFIX):
            return CID.parse(part.removeprefix(FROZEN_PREFIX)), "/".join(parts[index + 1 :])
    return None


def _ask_mlflow(name: MlflowUri, tracking_uri: str | None) -> list[str]:
    """The locations where MLflow looks for an artifact, in its order."""
    # MLflow takes seconds to import, and the other names do without it.
    from mlflow_ipfs.binding import mlflow_compat  # noqa: PLC0415

    with _mlflow_faults(name):
        mlflow_compat.prepare_client(tracking_uri)
        if scheme_of(name.text) == "models":
            location, path = mlflow_compat.model_location(name.text)
            return [_below(location, path)]
        run_id, _, path = name.text.partition(":")[2].strip("/").partition("/")
        run = mlflow_compat.get_run(run_id)
        locations = [_below(str(run.info.artifact_uri), path)]
        model_name, _, rest = join_path(path).partition("/")
        model = mlflow_compat.find_logged_model(run, model_name) if model_name else None
        return [*locations, _below(str(model.artifact_location), rest)] if model is not None else locations


def _advice(name: MlflowUri) -> str:
    """What to write instead of ``models:/NAME``, which MLflow takes for the id of a logged model."""
    model = name.text.partition(":")[2].strip("/")
    if scheme_of(name.text) != "models" or "/" in model or "@" in model or model.startswith(_MODEL_ID_PREFIX):
        return ""
    return f"; name a version or an alias: models:/{model}/1, models:/{model}@…"


def _below(location: str, path: str) -> str:
    path = check_path(path)
    return f"{location.rstrip('/')}/{path}" if path else location


@contextmanager
def _mlflow_faults(name: MlflowUri) -> Iterator[None]:
    """Turn MLflow's errors into ours."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - as above

    try:
        yield
    except MlflowException as error:
        msg = f"{name.text}: {error.message}"
        # MLflow has no code of its own for an alias, or a model without versions.
        if error.error_code in _NOT_FOUND_CODES or any(text in msg for text in _NOT_FOUND_TEXTS):
            msg += _advice(name)
            raise NotFoundError(msg) from error
        if error.error_code == "INVALID_PARAMETER_VALUE" or "Not a proper" in msg:
            raise InvalidPathError(msg) from error
        raise RemoteError(msg) from error
