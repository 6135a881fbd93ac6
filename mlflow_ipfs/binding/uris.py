"""Names of content on the command line (a CID, a mutable path, or an MLflow URI), and their resolution to a CID."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from mlflow_ipfs.binding.artifacts.snapshots import snapshot_in_memory
from mlflow_ipfs.binding.locations import IPFS, MFS, PROXIED, IpfsPath, check_path, parse_mfs, scheme_of, split_proxied
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import FROZEN_PREFIX, MfsPath
from mlflow_ipfs.errors import InvalidPathError, NotFoundError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.mlflow_names import LoggedModelName, MlflowAnswer
    from mlflow_ipfs.content.store import ContentStore

MLFLOW_SCHEMES: Final = ("models", "runs")

_MAX_MODELS_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class MlflowUri:
    """A ``models:/…`` or ``runs:/…`` URI, which MLflow resolves."""

    text: str

    @property
    def is_run(self) -> bool:
        """Whether the URI is ``runs:/…``."""
        return scheme_of(self.text) == "runs"


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
        other_models: if the content is the artifacts of a whole run, the run's logged models. Their files are not part
            of the content, because MLflow keeps them at other locations.
    """

    store: ContentStore
    cid: CID
    path: str = ""
    mutable_path: MfsPath | None = None
    other_models: tuple[LoggedModelName, ...] = ()

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
        after = text.partition("/ipfs/")[2]
        instead = f"write {after}, without the gateway" if after else f"write a CID or one of ipfs:, mfs:, {known}"
        msg = f"{text!r} has the scheme {scheme}:, which does not name content of a store; {instead}"
        raise InvalidPathError(msg)
    cid, _, path = text.removeprefix("/ipfs/").partition("/")
    return IpfsPath(CID.parse(cid), check_path(path))


def locate(store: ContentStore, name: ContentName, *, tracking_uri: str | None = None) -> Located:
    """Find content by its name.

    A name is taken as it is written. If it is not found and has percent escapes, as URLs copied from a browser have,
    it is decoded and tried again.

    Args:
        store: the store to search.
        name: the name of the content.
        tracking_uri: the MLflow tracking server or database that resolves ``models:/`` and ``runs:/``; None: the one
            that the environment sets.

    Raises:
        NotFoundError: MLflow or the store does not know the name, or the content is not in this store.
        InvalidPathError: MLflow cannot parse the URI.
        SettingsError: MLflow's database cannot be read.
        RemoteError: MLflow failed.
    """
    try:
        return _locate(store, name, tracking_uri)
    except NotFoundError:
        decoded = _decode(name)
        if decoded is None:
            raise
        try:
            found = _locate(store, decoded, tracking_uri)
            _ = found.root  # raises if the path does not exist
        except (NotFoundError, InvalidPathError):
            pass
        else:
            return found
        raise  # about the name as it was written


def _decode(name: ContentName) -> ContentName | None:
    """Return a name with its percent escapes decoded; None if it has none, or if the result is not a valid name."""
    try:
        if isinstance(name, MlflowUri):
            decoded: ContentName = MlflowUri(unquote(name.text))
        elif isinstance(name, IpfsPath):
            decoded = IpfsPath(name.cid, check_path(unquote(name.path)))
        else:
            decoded = MfsPath(name.root, check_path(unquote(name.path)))
    except InvalidPathError:
        return None
    return None if decoded == name else decoded


def _locate(store: ContentStore, name: ContentName, tracking_uri: str | None) -> Located:
    if isinstance(name, IpfsPath):
        if "%" in name.path:
            store.resolve(name.cid, name.path)  # raises if the name exists only in its decoded form
        return Located(store, name.cid, name.path)
    if isinstance(name, MfsPath):
        return _locate_mutable(store, name)
    from mlflow_ipfs.binding.mlflow_names import ask_mlflow  # noqa: PLC0415 - MLflow takes seconds to import

    answer = ask_mlflow(name.text, tracking_uri)
    problem: NotFoundError | None = None
    for location in answer.locations:
        try:
            return replace(_locate_stored(store, name, location, answer), other_models=answer.models)
        except NotFoundError as error:
            problem = problem or error
    assert problem is not None, "MLflow gives at least one location"
    msg = f"{problem}{_also(answer)}"
    raise NotFoundError(msg) from problem


def _also(answer: MlflowAnswer) -> str:
    """Return which logged models a run has, for a run whose own artifacts were not found."""
    if not answer.models:
        return ""
    names = ", ".join(f"models:/{model.model_id}" for model in answer.models[:_MAX_MODELS_NAMED])
    more = f" and {len(answer.models) - _MAX_MODELS_NAMED} more" if len(answer.models) > _MAX_MODELS_NAMED else ""
    return f". The run's logged models are stored separately: name {names}{more}"


def _locate_mutable(store: ContentStore, path: MfsPath) -> Located:
    frozen = store.files.split_frozen(path)
    if frozen is not None:
        return Located(store, *frozen)
    snapshot, cid = snapshot_in_memory(store, path)
    return Located(snapshot, cid, mutable_path=path)


def _locate_stored(store: ContentStore, name: MlflowUri, location: str, answer: MlflowAnswer) -> Located:
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
        raise NotFoundError(_explain_proxied(store, name, location, is_version=answer.is_version))
    msg = f"{name.text} is stored at {location}, which is not in IPFS, so it has no CID; add its files with `mlflow-ipfs add`"
    raise NotFoundError(msg)


def _explain_proxied(store: ContentStore, name: MlflowUri, location: str, *, is_version: bool) -> str:
    """Return why files behind an MLflow server have no CID yet, and what to do."""
    text = f"{name.text} is stored by an MLflow server at {location}, which can still change, so it has no CID yet. "
    mutable = _find_proxied(store, location)
    if mutable is not None:
        text += f"In this store it is {mutable}: name that instead, or pin it to give its present state a CID"
    else:
        text += "On the server's machine, name its mfs:// path and the server's store (--store)"
    if is_version:
        return f"{text}. A server with --registry-store-uri ipfs+… freezes every version that is registered"
    return f"{text}. Or register a model version of it, if the server has a --registry-store-uri ipfs+…"


def _find_proxied(store: ContentStore, location: str) -> MfsPath | None:
    """Return the path of proxied files in this store; None if it has no such files, or in several trees."""
    path = split_proxied(location)[1]
    found: set[str] = set()
    for root in store.roots():
        before, inside, _ = f"{root.name}/".partition(f"/{path}/")
        if root.cid is None and inside:
            found.add(f"{before}/{path}")
    return MfsPath.parse(found.pop()) if len(found) == 1 else None


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
