"""Labels of pins: the name under which a user added content, and when. They retain nothing.

A label is a note of the store, ``pin/<cid>/<owner>``, so that stores need no new format. A pin without a label, as
earlier versions and MLflow's registry make them, is complete. ContentStore writes a label in the same step as its pin.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow_ipfs.content.names.notes import Notes
    from mlflow_ipfs.content.names.pins import Pin

_PREFIX: Final = "pin/"


@dataclass(frozen=True, slots=True)
class PinLabel:
    """Where a pin comes from.

    Attributes:
        name: the name that was added or pinned last; ``""`` if it has none, as a stream.
        added_at: when that was, in seconds since 1970.
    """

    name: str = ""
    added_at: int | None = None


def label_notes(pins: Iterable[Pin], name: str) -> dict[str, str]:
    """Return the notes that label pins which are made now."""
    note = json.dumps({"name": name, "added_at": int(time.time())})
    return {_key(pin): note for pin in pins}


def read_labels(notes: Notes) -> Mapping[str, PinLabel]:
    """Return all labels. ``find_label`` finds that of a pin in them."""
    return {key: _decode(text) for key, text in notes.list(_PREFIX).items()}


def find_label(labels: Mapping[str, PinLabel], pin: Pin) -> PinLabel:
    """Return the label of a pin, an empty one if the pin has none."""
    return labels.get(_key(pin), PinLabel())


def delete_label(notes: Notes, pin: Pin) -> None:
    """Delete the label of a pin, if it has one."""
    notes.delete(_key(pin))


def _key(pin: Pin) -> str:
    return f"{_PREFIX}{pin.cid}/{pin.owner}"


def _decode(text: str) -> PinLabel:
    try:
        fields = json.loads(text)
        return PinLabel(str(fields["name"]), int(fields["added_at"]))
    except (ValueError, KeyError, TypeError):  # a label is not worth an error
        return PinLabel()
