"""Tests of `--debug`, which logs why files are hashed or trusted, and of `get --verify`, which hashes everything."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.local.publishing import object_writer
from mlflow_ipfs.content.store import ContentStore
from support.storages import put_file

if TYPE_CHECKING:
    from support.command_line import CommandLine


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "mlflow_ipfs")
    return caplog


def file_of(cli: CommandLine, root: str, path: str = "big.bin") -> Path:
    """Return the file of the store that contains the content."""
    with ContentStore(open_local_storage(cli.store)) as store:
        file = store.local_path(root, path)
    assert file is not None
    return file


def rot(file: Path) -> None:
    """Change a byte as a bad disk does: inode, size and mtime stay the same."""
    status = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.seek(1_500_000)
        byte = opened.read(1)
        opened.seek(1_500_000)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_get_logs_for_each_file_what_it_trusts(cli: CommandLine, root: str) -> None:
    file = file_of(cli, root)
    lines = cli.in_a_process("get", "--debug", root, "-o", "out").stderr.splitlines()
    big, small = (CID.parse(cli("ls", f"{root}/{path}").lines[0].split()[0]) for path in ("big.bin", "sub/small.txt"))
    trusted = f"mlflow-ipfs: {big}: {file} matches the index (inode, size, mtime); trusted without hashing"
    start = lines.index(f"mlflow-ipfs: {big}: writing to 'big.bin'")
    assert lines[start + 1 : start + 3] == [trusted, f"mlflow-ipfs: {big}: copying the file {file}"]
    assert f"mlflow-ipfs: {small}: wrote block by block, each verified" in lines


@pytest.mark.parametrize("words", ["--debug get {0} -o out", "get {0} -o out --debug"])
def test_debug_may_precede_or_follow_a_command(cli: CommandLine, root: str, words: str) -> None:
    assert "trusted without hashing" in cli.in_a_process(*words.format(root).split()).stderr


def test_without_debug_nothing_is_logged(cli: CommandLine, root: str) -> None:
    assert cli.in_a_process("get", root, "-o", "out").stderr == ""


def test_debug_is_about_one_run(cli: CommandLine, root: str) -> None:
    logger = logging.getLogger("mlflow_ipfs")
    before = logger.level
    cli("--debug", "get", root, "-o", "out", "--debug")
    assert logger.level == before


@pytest.mark.parametrize("how", ["its mtime is 0 instead of", "damage was found in it before"])
def test_get_logs_why_it_hashes_a_file_again(
    cli: CommandLine, root: str, said: pytest.LogCaptureFixture, how: str
) -> None:
    file = file_of(cli, root)
    if "mtime" in how:
        os.utime(file, ns=(0, 0))
    else:
        with open_local_storage(cli.store) as storage, storage._context.database.write() as connection:
            connection.execute("UPDATE place SET damaged = 1")
    said.clear()
    cli("get", f"{root}/big.bin", "-o", "out")
    assert f"hashing {file}, 2560000 bytes: {how}" in said.text
    assert f"every leaf in {file} matches its CID" in said.text
    said.clear()
    cli("get", f"{root}/big.bin", "-o", "again")
    assert f"hashing {file}" not in said.text


def test_get_logs_that_a_setting_makes_it_hash(
    cli: CommandLine, root: str, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_VERIFY", "always")
    cli("get", f"{root}/big.bin", "-o", "out")
    assert "every file is hashed, even if its stamp is unchanged" in said.text


def test_the_assembly_and_the_placing_of_a_file_are_logged(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 100_000)
    data = os.urandom(200_000)
    with ContentStore(open_local_storage(tmp_path / "store", view_mode="copy")) as store:
        for content in (data, os.urandom(1000) + data[1000:]):
            with store.storage.publish() as publication:
                root = put_file(publication, content)
                publication.commit()
        store.view(root)
    assert f"{root}: the store does not keep it as a single file" in said.text
    assert f"{root}: assembled in the cache from 200 leaves, 200000 bytes, each hashed" in said.text
    assert ": copied" in said.text


def test_the_reason_why_no_file_was_assembled_is_logged(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_writer, "DEDUPE_BYTES", 100_000)
    data = os.urandom(200_000)
    with ContentStore(open_local_storage(tmp_path / "store", cache_bytes=1000)) as store:
        for content in (data, os.urandom(1000) + data[1000:]):
            with store.storage.publish() as publication:
                root = put_file(publication, content)
                publication.commit()
        assert store.local_path(root) is None
    assert f"{root}: not assembled in the cache: it has 200000 bytes, and there is room for 1000" in said.text


def test_the_healing_of_a_file_is_logged(
    cli: CommandLine, directory: Path, root: str, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    other = cli("--store", tmp_path / "other", "add", "-q", "--hidden", directory).cid
    assert other == root
    file = file_of(cli, root)
    rot(file)
    os.utime(file, ns=(0, 0))
    with ContentStore(open_local_storage(cli.store)) as store, open_local_storage(tmp_path / "other") as source:
        store.storage.heal_from(source.blocks)
        store.view(root, dst=tmp_path / "out")
    assert f"is healed from the store {tmp_path / 'other'}" in said.text
    assert "so it is assembled again from blocks" in said.text
    assert "assembled to replace its damaged file" in said.text
    assert (tmp_path / "out/big.bin").read_bytes() == (directory / "big.bin").read_bytes()


def test_get_verify_finds_what_stamps_do_not_show(cli: CommandLine, directory: Path, root: str) -> None:
    rot(file_of(cli, root))
    cli("get", root, "-o", "trusted")
    assert Path("trusted/big.bin").read_bytes() != (directory / "big.bin").read_bytes(), "this is what --verify is for"
    outcome = cli("get", "--verify", root, "-o", "out", code=4)
    assert "is damaged between bytes 1048576 and 2097152" in outcome.stderr
    assert not Path("out").exists()


def test_get_verify_writes_what_is_sound(
    cli: CommandLine, directory: Path, root: str, said: pytest.LogCaptureFixture
) -> None:
    outcome = cli("get", "--verify", root, "-o", "out")
    assert outcome.lines == [f"wrote  out  {root}  (every block hashed)"]
    assert "trusted" not in said.text
    cli("verify", root, "--against", "out", "--hidden")
    assert Path("out/big.bin").read_bytes() == (directory / "big.bin").read_bytes()
    for options, verified in (((), False), (("--verify",), True)):
        (record,) = cli("get", *options, "--json", root, "-o", "out", "--force").records
        assert record == {"path": "out", "cid": root, "verified": verified, "other_files": 0}
