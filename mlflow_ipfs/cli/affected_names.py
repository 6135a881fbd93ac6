"""Whom damage concerns: runs' files, model versions, refs and pins, as lines and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.cli.keeper_names import version_of
from mlflow_ipfs.cli.terminal import align, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_ipfs.content.blockstore.interface import Affected

_KINDS: Final = ("model version", "frozen", "file", "ref", "pin", "outbox")
_SHOWN: Final = 10  # names of each kind


def affected_lines(names: Iterable[Affected]) -> list[str]:
    """Whom it concerns: a few of each kind, and how many more there are."""
    texts: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for name in names:
        kind, text = _text_of(name)
        texts[kind].append(text)
    rows = []
    for kind, found in texts.items():
        rows += [("affected", kind, text) for text in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append(("affected", kind, f"… and {len(found) - _SHOWN:,} more; --json lists all"))
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
    """The same for programs."""
    damaged = [str(cid) for cid in name.damaged]
    return {"kind": name.kind, "name": name.name, "cid": str(name.cid), "damaged": damaged}
