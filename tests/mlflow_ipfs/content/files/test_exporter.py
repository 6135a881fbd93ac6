"""Export restores what was imported, byte for byte, and never reaches outside of its destination."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_ipfs.content.cid import CID, DAG_CBOR, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import Link
from mlflow_ipfs.content.codecs.unixfs import NodeType, UnixFSData
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.importer import ImportOptions
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.errors import (
    IntegrityError,
    InvalidDataError,
    InvalidPathError,
    NotFoundError,
    PolicyError,
    StoreFullError,
)
from support.blocks import Blocks, directory_of, everything_in, import_into, leaf, link_to, node
from support.random_trees import trees
from vector_trees import Recipe, build

if TYPE_CHECKING:
    from support.unprivileged import OrdinaryUser

# Directories become sharded at a size that random trees reach.
TINY = replace(UNIXFS_V1_2025, max_links=3, hamt_threshold_bytes=120, hamt_fanout=8)
TINY_V0 = replace(UNIXFS_V0_2015, max_links=2, hamt_threshold_bytes=100, hamt_fanout=16)


def describe(path: Path | bytes, *, metadata: bool) -> dict[bytes, Any]:
    """Everything at and below a path: kinds, bytes, targets, and if wanted modes and times."""
    found: dict[bytes, Any] = {}
    todo = [(os.fsencode(path), b"")]
    while todo:
        current, name = todo.pop()
        status = os.lstat(current)
        more = (stat.S_IMODE(status.st_mode), status.st_mtime_ns) if metadata else ()
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", os.readlink(current), more[1:])
        elif stat.S_ISDIR(status.st_mode):
            found[name] = ("directory", more)
            todo += [(os.path.join(current, child), os.path.join(name, child)) for child in os.listdir(current)]
        else:
            with open(current, "rb") as file:
                found[name] = ("file", file.read(), more)
    return found


@pytest.mark.parametrize("profile", [TINY, TINY_V0], ids=["v1", "v0"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=trees([0, 1, 9, 10, 11, 100]), metadata=st.booleans(), data=st.data())
@pytest.mark.slow
def test_random_trees_come_back(
    tmp_path_factory: pytest.TempPathFactory, profile: Any, recipe: Recipe, metadata: bool, data: st.DataObject
) -> None:
    if metadata:
        recipe = data.draw(trees([0, 1, 9, 10, 11, 100], with_metadata=True))
    directory = tmp_path_factory.mktemp("trees")
    build(recipe, directory / "original")
    options = ImportOptions(
        profile=profile, chunker=FixedSizeChunker(10), preserve_mode=metadata, preserve_mtime=metadata
    )
    blocks = Blocks()
    imported = import_into(blocks, directory / "original", options)
    written: list[int] = []
    Exporter(blocks, allow_outside_links=True, progress=written.append).export(
        imported.link.cid, directory / "restored"
    )
    original = describe(directory / "original", metadata=metadata)
    assert describe(directory / "restored", metadata=metadata) == original
    assert sum(written) == imported.size_bytes
    assert imported.size_bytes == sum(len(each[1]) for each in original.values() if each[0] == "file")


@pytest.mark.parametrize("name", [b"..", b".", b"", b"/", b"a/b", b"../x", b"/etc/x", b"a\0b", b"..\0"])
def test_names_that_lead_elsewhere_are_refused(name: bytes, tmp_path: Path) -> None:
    blocks = Blocks()
    root = directory_of(blocks, (name, leaf(blocks)))
    with pytest.raises(InvalidDataError, match="not a valid name"):
        Exporter(blocks).export(root, tmp_path / "out")
    assert everything_in(tmp_path) in ([], ["out"])


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    blocks = Blocks()
    root = directory_of(blocks, (b"a", link_to(blocks, b"/etc")), (b"a", directory_of(blocks, (b"x", leaf(blocks)))))
    with pytest.raises(InvalidDataError, match="twice"):
        Exporter(blocks, allow_outside_links=True).export(root, tmp_path / "out")


ESCAPES = [
    b"/etc/passwd",
    b"/",
    b"..",
    b"../..",
    b"../../outside",
    b"./../..",
    b"inside/../../..",
    b"inside/../x",  # "inside" may itself be a symlink upwards
    b".//..",
    b"//",
]


@pytest.mark.parametrize("target", ESCAPES)
def test_symlinks_out_of_the_content_are_refused(target: bytes, tmp_path: Path) -> None:
    blocks = Blocks()
    root = directory_of(blocks, (b"inside", directory_of(blocks)), (b"link", link_to(blocks, target)))
    with pytest.raises(PolicyError, match="may be outside the destination"):
        Exporter(blocks).export(root, tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out" / "link")
    Exporter(blocks, allow_outside_links=True).export(root, tmp_path / "allowed")
    assert os.fsencode(os.readlink(tmp_path / "allowed" / "link")) == target


@pytest.mark.parametrize("target", [b"x", b"..", b"/etc/passwd", b"."])
def test_a_symlink_alone_always_leads_out(target: bytes, tmp_path: Path) -> None:
    blocks = Blocks()
    with pytest.raises(PolicyError):
        Exporter(blocks).export(link_to(blocks, target), tmp_path / "out")
    Exporter(blocks, allow_outside_links=True).export(link_to(blocks, target), tmp_path / "out")
    assert os.fsencode(os.readlink(tmp_path / "out")) == target


@given(targets=st.lists(st.lists(st.sampled_from(["..", ".", "a", "b", "l0", "l1", "l2"]), min_size=1), max_size=3))
def test_no_chain_of_symlinks_leads_out(targets: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Links in a/b, in a and at the top, each naming the others: wherever they lead, it is inside."""
    blocks = Blocks()
    links = [link_to(blocks, "/".join(target).encode()) for target in targets]
    inner = directory_of(blocks, *[(b"l%d" % number, cid) for number, cid in enumerate(links[:1])])
    middle = directory_of(blocks, (b"b", inner), *[(b"l1", cid) for cid in links[1:2]])
    root = directory_of(blocks, (b"a", middle), *[(b"l2", cid) for cid in links[2:3]])
    out = tmp_path_factory.mktemp("chains") / "out"
    try:
        Exporter(blocks).export(root, out)
    except PolicyError:
        return
    for path in out.rglob("*"):
        resolved = os.path.realpath(path)
        assert resolved == str(out) or resolved.startswith(f"{out}/")


def test_symlinks_inside_are_restored(tmp_path: Path) -> None:
    blocks = Blocks()
    deep = directory_of(blocks, (b"up", link_to(blocks, b"../../file")), (b"top", link_to(blocks, b"../..")))
    root = directory_of(
        blocks, (b"a", directory_of(blocks, (b"b", deep))), (b"file", leaf(blocks)), (b"l", link_to(blocks, b"./a//b"))
    )
    Exporter(blocks).export(root, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b" / "up").read_bytes() == b"data"
    assert (tmp_path / "out" / "l" / "top" / "file").read_bytes() == b"data"


@pytest.mark.parametrize("target", [b"", b"a\0b"])
def test_targets_that_are_no_paths_are_refused(target: bytes, tmp_path: Path) -> None:
    blocks = Blocks()
    root = directory_of(blocks, (b"l", link_to(blocks, target)))
    with pytest.raises(InvalidDataError, match="not a valid path"):
        Exporter(blocks, allow_outside_links=True).export(root, tmp_path / "out")


def test_nothing_is_written_through_a_symlink_that_is_there_already(tmp_path: Path) -> None:
    blocks = Blocks()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").symlink_to(outside)
    root = directory_of(blocks, (b"sub", directory_of(blocks, (b"precious", leaf(blocks)))))
    with pytest.raises(InvalidPathError, match="exists and is not a directory"):
        Exporter(blocks).export(root, out)
    (out / "sub").unlink()
    (out / "sub").symlink_to(outside / "precious")
    Exporter(blocks).export(directory_of(blocks, (b"sub", leaf(blocks))), out)
    assert (outside / "precious").read_text() == "precious"
    assert (out / "sub").read_bytes() == b"data"
    assert not (out / "sub").is_symlink()


def test_a_directory_in_place_of_a_file_and_the_other_way_round(tmp_path: Path) -> None:
    blocks = Blocks()
    out = tmp_path / "out"
    (out / "x").mkdir(parents=True)
    with pytest.raises(InvalidPathError, match="is a directory"):
        Exporter(blocks).export(directory_of(blocks, (b"x", leaf(blocks))), out)
    (out / "y").write_text("file")
    with pytest.raises(InvalidPathError, match="exists and is not a directory"):
        Exporter(blocks).export(directory_of(blocks, (b"y", directory_of(blocks))), out)


def test_files_are_replaced_and_directories_are_merged(tmp_path: Path) -> None:
    blocks = Blocks()
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    (out / "both").write_text("before")
    Exporter(blocks).export(directory_of(blocks, (b"both", leaf(blocks))), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"old": b"old", "both": b"data"}


def test_a_missing_or_damaged_block_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(range(256)) * 40)
    blocks = Blocks()
    options = ImportOptions(chunker=FixedSizeChunker(1000))
    root = import_into(blocks, tmp_path / "f", options).link.cid
    last = CID.of((bytes(range(256)) * 40)[10_000:])
    del blocks.by_multihash[last.multihash]
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(NotFoundError, match=str(last)):
        Exporter(blocks).export(root, out / "file")
    assert everything_in(out) == []


def test_integrity_errors_of_the_store_come_through(tmp_path: Path) -> None:
    class Liar(Blocks):
        def get(self, cid: CID) -> bytes:
            data = super().get(cid)
            cid.verify(data)
            return data

    blocks = Liar()
    cid = leaf(blocks)
    blocks.by_multihash[cid.multihash] = b"date"
    with pytest.raises(IntegrityError):
        Exporter(blocks).export(cid, tmp_path / "out")
    assert everything_in(tmp_path) == []


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    blocks = Blocks()
    part = leaf(blocks)
    size = 1 << 60
    root = node(blocks, UnixFSData(NodeType.FILE, size_bytes=size, block_sizes=(size,)), Link(part))
    with pytest.raises(StoreFullError, match=str(size)):
        Exporter(blocks).export(root, tmp_path / "out")
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_full_disk_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blocks = Blocks()
    if kind == "file":
        monkeypatch.setattr(os, "write", fail)
        root = leaf(blocks)
    else:
        monkeypatch.setattr(Path, "mkdir", fail)
        root = directory_of(blocks)
    with pytest.raises(StoreFullError, match="no space left on the disk of"):
        Exporter(blocks).export(root, tmp_path / "out")
    assert everything_in(tmp_path) == []


def test_directories_in_each_other_beyond_the_limit(deep_path: Path) -> None:
    """Deeper than Python's stack, deeper than a path can be: an error of ours, whichever limit is hit first."""
    blocks = Blocks()
    root = leaf(blocks)
    for _ in range(3000):
        root = directory_of(blocks, (b"d", root))
    with pytest.raises((InvalidDataError, InvalidPathError)):
        Exporter(blocks).export(root, deep_path / "out")


def test_directories_deeper_than_pythons_stack(deep_path: Path) -> None:
    blocks = Blocks()
    root = leaf(blocks)
    for _ in range(1200):
        root = directory_of(blocks, (b"d", root))
    Exporter(blocks).export(root, deep_path / "out")
    assert import_into(Blocks(), deep_path / "out").size_bytes == 4


def test_names_too_long_for_the_disk(tmp_path: Path) -> None:
    blocks = Blocks()
    for root in (
        directory_of(blocks, (b"n" * 256, leaf(blocks))),
        directory_of(blocks, (b"n" * 256, directory_of(blocks))),
        directory_of(blocks, (b"l", link_to(blocks, b"x" * 5000))),
    ):
        with pytest.raises(InvalidPathError, match="the name is invalid or the path too long"):
            Exporter(blocks).export(root, tmp_path / "out")


def test_rights_are_not_granted_by_content(tmp_path: Path) -> None:
    blocks = Blocks()
    file = node(blocks, UnixFSData(NodeType.FILE, b"x", 1, mode=0o6755))
    root = directory_of(blocks, (b"f", file), (b"d", directory_of(blocks, mode=0o1777)))
    Exporter(blocks).export(root, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out" / "f").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "out" / "d").stat().st_mode) == 0o777


def test_a_directory_that_may_not_be_written_to_is_filled_first(ordinary_user: OrdinaryUser) -> None:
    def export() -> tuple[int, bytes]:
        blocks = Blocks()
        root = directory_of(blocks, (b"f", node(blocks, UnixFSData(NodeType.FILE, b"x", 1, mode=0o400))), mode=0o500)
        target = ordinary_user.directory / "out"
        Exporter(blocks).export(root, target)
        return stat.S_IMODE(target.stat().st_mode), (target / "f").read_bytes()

    assert ordinary_user.run(export) == (0o500, b"x")


@pytest.mark.parametrize("seconds", [1 << 62, -(1 << 62), (1 << 63) - 1, -(1 << 63)])
def test_times_beyond_what_the_disk_keeps_do_not_stop_an_export(seconds: int, tmp_path: Path) -> None:
    """The system takes the nearest time that it can record."""
    blocks = Blocks()
    file = node(blocks, UnixFSData(NodeType.FILE, b"x", 1, mtime_ns=seconds * 1_000_000_000))
    Exporter(blocks).export(file, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"x"


def test_what_is_no_unixfs_is_not_exported(tmp_path: Path) -> None:
    blocks = Blocks()
    for block, codec in ((b"\xa0", DAG_CBOR), (b"", DAG_PB), (b"\x0a\x02\x08\x03", DAG_PB), (b"\xff\xff", DAG_PB)):
        with pytest.raises(InvalidDataError):
            Exporter(blocks).export(blocks.put_node(block, codec), tmp_path / "out")
    assert everything_in(tmp_path) == []


class RecordingLinker:
    """Stands for a store that keeps one file whole."""

    def __init__(self, whole: Path) -> None:
        self.whole = whole
        self.linked: list[Path] = []

    def file_path(self, cid: CID) -> Path:
        del cid
        return self.whole

    ensure_file = file_path

    def link_file(self, source: Path, destination: Path) -> None:
        self.linked.append(destination)
        os.link(source, destination)


def test_a_link_into_the_store_never_gets_a_mode_or_a_time(tmp_path: Path) -> None:
    whole = tmp_path / "object"
    whole.write_bytes(b"x")
    whole.chmod(0o444)
    before = whole.stat()
    linker = RecordingLinker(whole)
    blocks = Blocks()
    plain = node(blocks, UnixFSData(NodeType.FILE, b"x", 1))
    dated = node(blocks, UnixFSData(NodeType.FILE, b"x", 1, mode=0o666, mtime_ns=5))
    Exporter(blocks, linker=linker).export(directory_of(blocks, (b"plain", plain), (b"dated", dated)), tmp_path / "out")
    assert len(linker.linked) == 1
    assert (tmp_path / "out" / "plain").stat().st_ino == before.st_ino
    assert (tmp_path / "out" / "dated").stat().st_mtime_ns == 5
    after = whole.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
