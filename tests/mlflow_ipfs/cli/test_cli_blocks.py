"""Tests of `block`, `refs` and `dag`, whose output is Kubo's."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine
    from support.kubo import KuboRepository

UNKNOWN = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def tree(cli: CommandLine, directory: Path) -> str:
    """Return the CID of a directory in which a file of several chunks and a small file occur twice."""
    (directory / "copy.bin").write_bytes((directory / "big.bin").read_bytes())
    (directory / "small.txt").write_text("small\n")
    return cli("add", "-q", directory).cid


def test_a_block_is_written_and_measured(cli: CommandLine, tree: str) -> None:
    assert cli("block", "get", f"{tree}/sub/small.txt").stdout == b"small\n"
    size = len(cli("block", "get", tree).stdout)
    assert cli("block", "stat", tree).lines == [f"Key: {tree}", f"Size: {size}"]
    assert cli("block", "stat", tree, "--json").records == [{"cid": tree, "size_bytes": size}]


def test_links_are_listed_as_json(cli: CommandLine, tree: str) -> None:
    names = [(record["source"], record["name"]) for record in cli("refs", "--json", tree).records]
    assert names == [(tree, name) for name in ("big.bin", "copy.bin", "link", "small.txt", "sub")]


def test_shared_data_counts_once(cli: CommandLine, tree: str) -> None:
    one, sub, totals = cli("dag", "stat", "--json", tree, f"{tree}/sub").records
    assert one["cid"] == tree
    assert totals == {
        "unique_blocks": one["blocks"],
        "total_bytes": one["size_bytes"],
        "shared_bytes": sub["size_bytes"],
    }


@pytest.mark.parametrize("command", [("block", "get"), ("block", "stat"), ("refs",), ("dag", "stat")])
def test_an_unknown_cid_is_3_with_a_next_step(cli: CommandLine, tree: str, command: tuple[str, ...]) -> None:
    del tree
    assert f"{UNKNOWN} is not in this store; add the content" in cli(*command, UNKNOWN, code=3).stderr


def test_edges_and_a_format_exclude_each_other(cli: CommandLine, tree: str) -> None:
    assert "--edges and --format" in cli("refs", "-e", "--format", "<dst>", tree, code=2).stderr


def test_links_of_a_repeated_block_are_listed_if_it_is_reached_with_more_levels_left(
    cli: CommandLine, tmp_path: Path
) -> None:
    deep = tmp_path / "d" / "a" / "b" / "same"
    deep.mkdir(parents=True)
    (deep / "leaf").write_text("leaf")
    same = tmp_path / "d" / "z"
    same.mkdir()
    (same / "leaf").write_text("leaf")
    root = cli("add", "-q", tmp_path / "d").cid
    leaf = cli("cid", f"{root}/z/leaf").lines[0]
    assert leaf not in cli("refs", "-r", "-u", "--max-depth", "3", f"{root}/a").lines[:2]
    assert cli("refs", "-r", "-u", "--max-depth", "3", root).lines.count(leaf) == 1


@pytest.mark.kubo
class TestAgainstKubo:
    @pytest.fixture
    def both(self, cli: CommandLine, tree: str, kubo_v1: KuboRepository) -> tuple[CommandLine, str, KuboRepository]:
        """Return the command and Kubo with the same content."""
        kubo_v1("dag", "import", stdin=cli("car", "export", tree).stdout)
        return cli, tree, kubo_v1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("refs",),
            ("refs", "-r"),
            ("refs", "--recursive", "--unique"),
            ("refs", "-r", "-e"),
            ("refs", "-r", "--format", "<src> <dst> <linkname>"),
            ("refs", "-r", "--max-depth", "1"),
            ("refs", "-r", "-u", "--max-depth", "2"),
            ("refs", "-r", "--max-depth", "0"),
            ("refs", "--max-depth", "2"),
            ("block", "stat"),
            ("dag", "stat"),
        ],
        ids=" ".join,
    )
    def test_output_is_the_same(
        self, both: tuple[CommandLine, str, KuboRepository], arguments: tuple[str, ...]
    ) -> None:
        cli, tree, kubo = both
        flags = ("--progress=false",) if arguments[0] == "dag" else ()
        assert cli(*arguments, tree).stdout.decode().rstrip("\n") == kubo(*arguments, *flags, tree)

    def test_blocks_are_the_same(self, both: tuple[CommandLine, str, KuboRepository]) -> None:
        cli, tree, kubo = both
        for cid in (tree, *cli("refs", "-r", "-u", tree).lines):
            assert cli("block", "get", cid).stdout == kubo.run("block", "get", cid)

    def test_several_roots_are_the_same(self, both: tuple[CommandLine, str, KuboRepository]) -> None:
        cli, tree, kubo = both
        roots = (f"{tree}/sub", tree, f"{tree}/big.bin")
        for arguments, flags in ((("refs", "-r", "-u"), ()), (("dag", "stat"), ("--progress=false",))):
            assert cli(*arguments, *roots).stdout.decode().rstrip("\n") == kubo(
                *arguments, *flags, *(f"/ipfs/{root}" for root in roots)
            )

    def test_a_sharded_directory_and_other_codecs_are_the_same(
        self, cli: CommandLine, kubo_v1: KuboRepository, tmp_path: Path
    ) -> None:
        many = tmp_path / "many"
        many.mkdir()
        for number in range(6000):
            (many / f"a name of a file that is not short at all {number:0>100}").write_bytes(os.urandom(4))
        root = kubo_v1("add", "-rQ", many)
        data = kubo_v1("dag", "put", stdin=json.dumps({"a": {"/": root}, "b": [{"/": root}]}).encode())
        cli("car", "import", "-", stdin=kubo_v1.run("dag", "export", "--progress=false", data))
        for arguments in (("refs", "-r", "--format", "<src> <dst> <linkname>"), ("dag", "stat")):
            flags = ("--progress=false",) if arguments[0] == "dag" else ()
            assert cli(*arguments, data).stdout.decode().rstrip("\n") == kubo_v1(*arguments, *flags, data)
