"""What keeps content, as people know it: model versions, experiments, pins."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mlflow_ipfs.content.blockstore.interface import Root

OWNERS: Final = "model-version"  # what the model registry's owners start with
_CONFIRMED: Final = f"{OWNERS}:"
_REGISTRY_ID: Final = re.compile(r"[0-9a-f]{16}/")


class Group(NamedTuple):
    """Keepers that belong together: those of an experiment, a registered model, an owner."""

    kind: str
    name: str


def version_of(owner: str) -> str | None:
    """``<name>/<version>`` from ``model-version:<registry id>/<name>/<version>``; None for the owner of other pins."""
    if not owner.startswith(_CONFIRMED):
        return None
    return owner.removeprefix(_CONFIRMED).partition("/")[2] or None


def group_of(root: Root) -> Group:
    """The group of a root."""
    version = version_of(root.name) if root.kind == "pin" else None
    if version is not None:
        return Group("model", version.rpartition("/")[0])
    if root.cid is None:
        return Group("experiment", experiment_of(root.name))
    if root.kind == "frozen":
        return Group("frozen", experiment_of(root.name))
    return Group(root.kind, root.name)


def experiment_of(uri: str) -> str:
    """``mfs://mlflow/<experiment>`` or ``mfs://mlflow/<registry id>/<experiment>`` of anything below it."""
    root, _, path = uri.removeprefix("mfs://").partition("/")
    registry = _REGISTRY_ID.match(path)
    prefix = registry.group() if registry else ""
    experiment = path.removeprefix(prefix).partition("/")[0]
    return f"mfs://{root}/{prefix}{experiment}".rstrip("/")
