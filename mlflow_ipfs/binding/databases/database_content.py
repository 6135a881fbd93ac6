"""The content that a database has claimed in a store: what it is, and dropping it when the database no longer exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.databases import claims
from mlflow_ipfs.binding.databases.probes import is_gone
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.kinds import NameKind
from mlflow_ipfs.errors import NotFoundError, PolicyError

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.entries import Frozen
    from mlflow_ipfs.content.names.pins import Pin
    from mlflow_ipfs.content.store import ContentStore

PIN_OWNERS: Final = ("model-version:", "model-version-pending:")  # followed by the registry id


@dataclass(frozen=True, slots=True)
class DatabaseContent:
    """The names in a store that belong to one registry id.

    Attributes:
        pins: the pins of its model versions.
        frozen: the frozen paths of its model versions.
        trees: the mutable trees with its files.
        files: how many files the trees have.
    """

    pins: tuple[Pin, ...]
    frozen: tuple[Frozen, ...]
    trees: tuple[MfsPath, ...]
    files: int

    def cids(self, store: ContentStore) -> list[CID]:
        """Return the CIDs that the names retain."""
        in_trees = [entry.cid for tree in self.trees for entry in store.storage.entries.walk(tree.root, tree.path)]
        return [pin.cid for pin in self.pins] + [one.cid for one in self.frozen] + in_trees


def find_content(store: ContentStore, registry_id: str, server_trees: tuple[MfsPath, ...] = ()) -> DatabaseContent:
    """Return the names that belong to a registry id.

    Args:
        store: the store.
        registry_id: the registry id.
        server_trees: the ``--artifacts-destination`` of servers that only this database had. The paths behind a server
            contain no registry id, so the store cannot know which of them belong to the database.
    """
    storage = store.storage
    pins = [pin for owner in PIN_OWNERS for pin in storage.pins.list(owner_prefix=f"{owner}{registry_id}/")]
    others = {
        pin.cid
        for owner in PIN_OWNERS
        for pin in storage.pins.list(owner_prefix=owner)
        if not pin.owner.startswith(f"{owner}{registry_id}/")
    }
    known = set(claims.list_databases(storage)) - {registry_id}
    only_its = {pin.cid for pin in pins} - others
    frozen = [
        one
        for one in storage.entries.list_frozen()
        if (first := one.path.partition("/")[0]) == registry_id or (first not in known and one.cid in only_its)
    ]
    trees = [*_own_trees(store, registry_id), *server_trees]
    files = sum(len(store.files.walk(tree)) for tree in trees)
    return DatabaseContent(tuple(pins), tuple(frozen), tuple(trees), files)


def find_unclaimed(store: ContentStore) -> dict[str, list[CID]]:
    """Return the content of the files that are below no registry id, by the mutable tree.

    Servers write such files. The store does not record for which database.
    """
    known = set(claims.list_databases(store.storage))
    names = {root.name.removeprefix("mfs://").partition("/")[0] for root in store.roots() if root.kind is NameKind.FILE}
    found: dict[str, list[CID]] = {}
    for name in sorted(names):
        entries = store.files.walk(MfsPath(name))
        if cids := [entry.cid for entry in entries if entry.path.partition("/")[0] not in known]:
            found[str(MfsPath(name))] = cids
    return found


def drop_content(
    store: ContentStore, registry_id: str, server_trees: tuple[MfsPath, ...] = (), *, even_if_in_use: bool = False
) -> DatabaseContent:
    """Remove every name that belongs to a registry id, and forget the id. An interrupted drop can be repeated.

    The next ``gc`` after the grace period frees the space of what no other name needs.

    Raises:
        NotFoundError: the store does not know the id.
        PolicyError: a database with the id exists, or may exist where this process cannot see it; or a tree of a server
            contains files of another database.
    """
    storage = store.storage
    if registry_id not in claims.list_databases(storage):
        msg = f"no database with the registry id {registry_id} used this store; `mlflow-ipfs databases ls` lists them"
        raise NotFoundError(msg)
    if not even_if_in_use:
        _check_gone(store, registry_id)
    _check_contains_no_other(store, registry_id, server_trees)
    content = find_content(store, registry_id, server_trees)
    for tree in content.trees:
        storage.entries.delete(tree.root, tree.path)
    for one in content.frozen:
        storage.entries.unfreeze(one)
    for pin in content.pins:
        storage.pins.remove(pin.cid, pin.owner)
    claims.forget_database(storage, registry_id)
    return content


def _own_trees(store: ContentStore, registry_id: str) -> list[MfsPath]:
    """Return the trees of a registry id: one below each root, ``mfs://<root>/<registry id>``."""
    found = set()
    for root in store.roots():
        if root.kind is NameKind.FILE:
            name, _, path = root.name.removeprefix("mfs://").partition("/")
            if path.partition("/")[0] == registry_id:
                found.add(MfsPath(name, registry_id))
    return sorted(found, key=str)


def _check_contains_no_other(store: ContentStore, registry_id: str, server_trees: tuple[MfsPath, ...]) -> None:
    others = set(claims.list_databases(store.storage)) - {registry_id}
    for tree in server_trees:
        for other in others:
            inside = [
                own
                for own in _own_trees(store, other)
                if own.root == tree.root and f"{own.path}/".startswith(tree.path)
            ]
            if inside:
                msg = f"nothing was dropped: {tree} contains {inside[0]}, the files of the database {other}; name a smaller tree"
                raise PolicyError(msg)


def _check_gone(store: ContentStore, registry_id: str) -> None:
    for location in claims.list_locations(store.storage, registry_id):
        if not is_gone(location, registry_id, None):
            msg = (
                f"nothing was dropped: the MLflow database {location.uri} may still be in use and needs its content. Delete "
                "the database first; if it no longer exists, repeat the command with --even-if-in-use"
            )
            raise PolicyError(msg)
