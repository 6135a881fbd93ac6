"""Destinations of an export that are in use, change meanwhile, or cannot be written to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.errors import (
    InvalidPathError,
)
from support.blocks import Blocks, directory_of, everything_in, leaf

if TYPE_CHECKING:
    from pathlib import Path

    from support.unprivileged import OrdinaryUser


@pytest.mark.parametrize("below", ["file/a", "file/a/b"])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_destination_below_a_file_is_refused(kind: str, below: str, tmp_path: Path) -> None:
    blocks = Blocks()
    cid = leaf(blocks) if kind == "file" else directory_of(blocks, (b"a", leaf(blocks)))
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(InvalidPathError, match="cannot be created: .*/file' is not a directory"):
        Exporter(blocks).export(cid, tmp_path / below)
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_destination_with_a_nul_is_refused(tmp_path: Path) -> None:
    blocks = Blocks()
    for cid in (leaf(blocks), directory_of(blocks)):
        with pytest.raises(InvalidPathError, match="must not contain a NUL character"):
            Exporter(blocks).export(cid, tmp_path / "a\0b")


@pytest.mark.parametrize("put_there", ["nothing", "a file", "a symlink", "a broken symlink"])
def test_a_directory_that_is_removed_or_replaced_meanwhile_is_named(put_there: str, tmp_path: Path) -> None:
    blocks = Blocks()
    cid = directory_of(blocks, (b"sub", directory_of(blocks, (b"a", leaf(blocks)), mtime_ns=1)))
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def interfere(_: int) -> None:  # called when the bytes of a are there, before it gets its name
        (out / "sub").rename(tmp_path / "moved")
        if put_there == "a file":
            (out / "sub").write_bytes(b"")
        elif put_there != "nothing":
            (out / "sub").symlink_to(elsewhere if put_there == "a symlink" else tmp_path / "none")

    with pytest.raises(InvalidPathError, match="out/sub") as caught:
        Exporter(blocks, progress=interfere).export(cid, out)
    assert ".mlflow-ipfs-" not in str(caught.value)
    assert everything_in(elsewhere) == []


def test_the_metadata_of_a_directory_goes_through_no_symlink(tmp_path: Path) -> None:
    blocks = Blocks()
    a, b = leaf(blocks, b"a" * 10), leaf(blocks, b"b" * 20)
    cid = directory_of(blocks, (b"a", directory_of(blocks, (b"a", a), mtime_ns=1)), (b"b", b))
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = elsewhere.stat().st_mtime_ns

    def interfere(size_bytes: int) -> None:
        if size_bytes == 20:
            (out / "a").rename(tmp_path / "moved")
            (out / "a").symlink_to(elsewhere)

    Exporter(blocks, progress=interfere).export(cid, out)  # "a" was finished before "b" was written
    assert elsewhere.stat().st_mtime_ns == before
    assert (tmp_path / "moved").stat().st_mtime_ns == 1


def test_a_directory_that_becomes_a_symlink_gets_no_metadata(tmp_path: Path) -> None:
    blocks = Blocks()
    cid = directory_of(blocks, (b"a", leaf(blocks)), mtime_ns=1)
    out, moved = tmp_path / "out", tmp_path / "moved"

    def interfere(_: int) -> None:
        out.rename(moved)
        out.symlink_to(moved)

    with pytest.raises(InvalidPathError, match="out' was removed or replaced"):
        Exporter(blocks, progress=interfere).export(cid, out)
    assert moved.stat().st_mtime_ns != 1


def test_what_the_system_refuses_names_the_destination(ordinary_user: OrdinaryUser) -> None:
    closed = ordinary_user.directory / "closed"

    def export() -> str:
        closed.mkdir(mode=0o500)
        blocks = Blocks()
        with pytest.raises(PermissionError) as caught:
            Exporter(blocks).export(leaf(blocks), closed / "x")
        return str(caught.value.filename)

    assert ordinary_user.run(export) == str(closed / "x")
