"""What every ``Notes`` must do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from mlflow_ipfs.content.storage.base import Storage


def test_a_note_is_kept_until_it_is_deleted(storage: Storage) -> None:
    storage.notes.set("b/1", "one")
    storage.notes.set("b/1", "two")
    storage.notes.set("a/ü", "")
    assert list(storage.notes.list().items()) == [("a/ü", ""), ("b/1", "two")]
    assert storage.notes.delete("b/1")
    assert not storage.notes.delete("b/1")
    assert storage.notes.list() == {"a/ü": ""}


def test_notes_are_listed_by_prefix(storage: Storage) -> None:
    for key in ("a", "a/1", "a/2", "ab", "b%", "b_"):
        storage.notes.set(key, key)
    assert list(storage.notes.list("a/")) == ["a/1", "a/2"]
    assert list(storage.notes.list("b_")) == ["b_"]
    assert list(storage.notes.list("c")) == []


def test_a_note_keeps_no_content_and_gc_keeps_notes(storage: Storage) -> None:
    storage.notes.set("a", "1")
    storage.collect_garbage()
    assert storage.notes.list() == {"a": "1"}
    assert list(storage.roots()) == []


def test_notes_are_written_with_the_names_of_a_publication_or_not_at_all(storage: Storage) -> None:
    block = b"content"
    cid = CID.of(block)
    storage.notes.set("a", "before")
    with storage.publish() as publication, pytest.raises(NotFoundError):
        publication.commit(Changes(pins=[Pin("me", cid)], notes={"a": "after"}))
    assert storage.notes.list() == {"a": "before"}
    with storage.publish() as publication:
        publication.put(cid, block)
        publication.commit(Changes(pins=[Pin("me", cid)], notes={"a": "after", "b": "new"}))
    assert storage.notes.list() == {"a": "after", "b": "new"}
