"""The walk of a source tree: order, counts, hidden names, and what is examined when."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.source import walk
from mlflow_ipfs.errors import NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "tree"
    (directory / "b/deep").mkdir(parents=True)
    (directory / "b/deep/file").write_text("x")
    (directory / "b/.hidden").write_text("x")
    (directory / "a").write_text("x")
    (directory / "c").symlink_to("b")
    (directory / ".git").mkdir()
    (directory / ".git/config").write_text("x")
    (directory / "empty").mkdir()
    return directory


def steps(path: Path, *, include_hidden: bool = True) -> list[tuple[str, str, int, int]]:
    return [
        (visit.name.decode(), visit.source.kind.value, visit.child_count, visit.hidden_left_out)
        for visit in walk(os.fsencode(path), include_hidden=include_hidden)
    ]


def test_a_directory_follows_its_entries_which_come_in_byte_order(tree: Path) -> None:
    assert steps(tree) == [
        ("config", "file", 0, 0),
        (".git", "directory", 1, 0),
        ("a", "file", 0, 0),
        (".hidden", "file", 0, 0),
        ("file", "file", 0, 0),
        ("deep", "directory", 1, 0),
        ("b", "directory", 2, 0),
        ("c", "symlink", 0, 0),
        ("empty", "directory", 0, 0),
        ("", "directory", 5, 0),
    ]


def test_hidden_entries_are_left_out_and_counted_where_they_are(tree: Path) -> None:
    assert steps(tree, include_hidden=False) == [
        ("a", "file", 0, 0),
        ("file", "file", 0, 0),
        ("deep", "directory", 1, 0),
        ("b", "directory", 1, 1),
        ("c", "symlink", 0, 0),
        ("empty", "directory", 0, 0),
        ("", "directory", 4, 1),
    ]


def test_a_single_file_or_symlink_is_one_step(tree: Path) -> None:
    assert steps(tree / "b/.hidden", include_hidden=False) == [("", "file", 0, 0)]
    assert steps(tree / "c") == [("", "symlink", 0, 0)]


def test_what_vanishes_is_noticed_when_its_turn_comes(tree: Path) -> None:
    """Each entry is examined right before it is yielded, so that its state and its bytes are of one moment."""
    walking = walk(os.fsencode(tree))
    names = [next(walking).name for _ in range(3)]
    assert names[-1] == b"a"
    (tree / "c").unlink()
    with pytest.raises(SourceChangedError, match="c'"):
        list(walking)
    with pytest.raises(NotFoundError):
        next(walk(os.fsencode(tree / "c")))
