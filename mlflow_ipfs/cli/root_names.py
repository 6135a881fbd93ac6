"""Names that retain content, in the terms of users: model versions, experiments, refs and pins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mlflow_ipfs.cli.terminal import align, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.storage.maintenance import Affected

_KINDS: Final = ("model version", "frozen", "file", "ref", "pin", "outbox")
_SHOWN: Final = 10  # names of each kind
MODEL_VERSION_PREFIX: Final = "model-version"  # of the owners that the model registry uses
_VERSION_OWNER: Final = f"{MODEL_VERSION_PREFIX}:"
_REGISTRY_ID: Final = re.compile(r"[0-9a-f]{16}/")


def affected_lines(names: Iterable[Affected], label: str = "affected") -> list[str]:
    """Return lines that list the affected names: some of each kind, and how many more exist."""
    texts: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for name in names:
        kind, text = _text_of(name)
        texts[kind].append(text)
    rows = []
    for kind, found in texts.items():
        rows += [(label, kind, text) for text in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append((label, kind, f"… and {len(found) - _SHOWN:,} more; --json lists all"))
    return align(rows)


def _text_of(name: Affected) -> tuple[str, str]:
    version = version_of(name.name) if name.kind == "pin" else None
    if version is not None:
        return "model version", f"{printable(version)}  {name.cid}"
    if name.kind == "file":
        return "file", printable(name.name)
    if name.kind == "frozen":
        return "frozen", f"{printable(name.name)}/@{name.cid}"
    return name.kind, f"{printable(name.name)}  {name.cid}"


def affected_fields(name: Affected) -> dict[str, Any]:
    """Return the fields of an affected name for ``--json``."""
    damaged = [str(cid) for cid in name.damaged]
    return {"kind": name.kind, "name": name.name, "cid": str(name.cid), "damaged": damaged}


class Group(NamedTuple):
    """A group of roots: those of an experiment, a registered model or an owner.

    Attributes:
        kind: ``model``, ``experiment``, ``frozen`` or the kind of the root.
        name: the name of the model, the experiment or the root.
        registry_id: the registry id of the database that the group belongs to; ``""`` if its name contains none.
    """

    kind: str
    name: str
    registry_id: str = ""


def version_of(owner: str) -> str | None:
    """Return ``<name>/<version>`` from ``model-version:<registry id>/<name>/<version>``; None for other owners."""
    if not owner.startswith(_VERSION_OWNER):
        return None
    return owner.removeprefix(_VERSION_OWNER).partition("/")[2] or None


def group_of(root: Root) -> Group:
    """Return the group of a root."""
    version = version_of(root.name) if root.kind == "pin" else None
    if version is not None:
        registry_id = root.name.removeprefix(_VERSION_OWNER).partition("/")[0]
        return Group("model", version.rpartition("/")[0], registry_id)
    if root.cid is None:
        return tree_group("experiment", experiment_of(root.name))
    if root.kind == "frozen":
        return tree_group("frozen", experiment_of(root.name))
    return Group(root.kind, root.name)


def tree_group(kind: str, tree: str) -> Group:
    """Return the group of a tree that ``experiment_of`` named."""
    registry = _REGISTRY_ID.match(tree.removeprefix("mfs://").partition("/")[2] + "/")
    return Group(kind, tree, registry.group().rstrip("/") if registry else "")


def experiment_of(uri: str) -> str:
    """Return the experiment of an ``mfs://`` URI.

    The result is ``mfs://mlflow/<experiment>`` or ``mfs://mlflow/<registry id>/<experiment>``.
    """
    root, _, path = uri.removeprefix("mfs://").partition("/")
    registry = _REGISTRY_ID.match(path)
    prefix = registry.group() if registry else ""
    experiment = path.removeprefix(prefix).partition("/")[0]
    return f"mfs://{root}/{prefix}{experiment}".rstrip("/")
