"""The model version that a pin belongs to, from its owner: ``model-version:<registry id>/<name>/<version>``."""

from __future__ import annotations

from typing import Final

OWNERS: Final = "model-version"  # what the model registry's owners start with
_CONFIRMED: Final = f"{OWNERS}:"


def version_of(owner: str) -> str | None:
    """``<name>/<version>``, as in ``models:/<name>/<version>``; None if the owner is no model version."""
    if not owner.startswith(_CONFIRMED):
        return None
    return owner.removeprefix(_CONFIRMED).partition("/")[2] or None
