from __future__ import annotations

import errno
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from mlflow_ipfs.cli import main
from mlflow_ipfs.cli.errors import ExitCode
from mlflow_ipfs.content.system.disk import Disk

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine
    from support.kubo import KuboRepository
    from support.unprivileged import OrdinaryUser

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"  # of no bytes at all


def test_each_path_gets_one_line_that_ends_with_its_cid(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "longer-name").write_bytes(b"x" * 1500)
    outcome = cli("add", "empty", "longer-name")
    assert outcome.lines[0] == f"added  empty             0 B  {EMPTY}"
    assert outcome.lines[1].startswith("added  longer-name    1.5 kB, all new  bafkrei")
    assert outcome.stderr == f"mlflow-ipfs: created the store {cli.store}\n"


def test_quiet_prints_nothing_but_cids(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert cli("add", "-q", "empty", "empty").lines == [EMPTY, EMPTY]


def test_json_has_one_object_for_each_path(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bb")
    outcome = cli("add", "--json", "a", "b")
    assert [(record["path"], record["size_bytes"]) for record in outcome.records] == [("a", 1), ("b", 2)]
    assert all(record["cid"].startswith("bafkrei") for record in outcome.records)


def test_hidden_files_are_left_out_and_counted(cli: CommandLine, directory: Path) -> None:
    (directory / "link").unlink()
    without = cli("add", directory)
    assert "skipped 1 hidden entry in " in without.stderr
    assert "--hidden" in without.stderr
    with_hidden = cli("add", "--hidden", directory)
    assert with_hidden.stderr == ""
    assert with_hidden.cid != without.cid
    assert ".hidden" not in cli("ls", without.cid).stdout.decode()
    assert ".hidden" in cli("ls", with_hidden.cid).stdout.decode()


def test_what_is_added_is_pinned(cli: CommandLine, directory: Path) -> None:
    cid = cli("add", directory).cid
    assert [(record["cid"], record["owner"]) for record in cli("pin", "ls", "--json").records] == [(cid, "user")]


def test_only_hash_makes_no_store(cli: CommandLine, directory: Path) -> None:
    outcome = cli("add", "--only-hash", directory, "-", stdin=b"")
    assert not cli.store.exists()
    assert outcome.lines[0].startswith("hashed  ")
    assert outcome.lines[0].split()[-1] == cli("add", "-q", directory).lines[0]
    assert outcome.lines[1].endswith(EMPTY)


@pytest.mark.kubo
@pytest.mark.parametrize(
    ("ours", "kubos"),
    [
        ((), ()),
        (("--hidden",), ("--hidden",)),
        (("--wrap",), ("--wrap-with-directory",)),
        (("--follow",), ("--dereference-symlinks",)),
        (("--chunker", "size-262144"), ("--chunker", "size-262144")),
        (("--preserve-mode", "--preserve-mtime"), ("--raw-leaves=false", "--preserve-mode", "--preserve-mtime")),
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_cids_are_kubos(
    cli: CommandLine, directory: Path, kubo_v1: KuboRepository, ours: tuple[str, ...], kubos: tuple[str, ...]
) -> None:
    expected = kubo_v1("add", "--pin=false", "--recursive", "--quieter", *kubos, directory)
    assert cli("add", "-q", *ours, directory).lines == [expected]


@pytest.mark.kubo
def test_cids_of_the_old_profile_are_kubos(cli: CommandLine, directory: Path, kubo_v0: KuboRepository) -> None:
    expected = kubo_v0("add", "--only-hash", "--recursive", "--quieter", directory)
    assert cli("add", "-q", "--only-hash", "--profile", "unixfs-v0-2015", directory).lines == [expected]


@pytest.mark.kubo
@pytest.mark.parametrize("size", [0, 5, 1 << 20, 3 << 20])
def test_standard_input_gets_the_cid_that_kubo_gives_it(cli: CommandLine, kubo_v1: KuboRepository, size: int) -> None:
    data = os.urandom(size)
    cid = cli("add", "-q", "-", stdin=data).lines[0]
    assert cid == kubo_v1("add", "--only-hash", "--quieter", stdin=data)
    assert cli("cat", cid).stdout == data


def test_a_chunker_and_a_profile_apply_to_standard_input_too(cli: CommandLine) -> None:
    data = bytes(2_000_000)
    plain = cli("add", "-q", "-n", "-", stdin=data).lines
    assert cli("add", "-q", "-n", "--chunker", "size-1000000", "-", stdin=data).lines != plain
    assert cli("add", "-q", "-n", "--profile", "unixfs-v0-2015", "-", stdin=data).lines[0].startswith("Qm")


def test_a_profile_on_the_command_line_puts_a_chunker_of_the_settings_out_of_force(
    cli: CommandLine, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cli("add", "-q", "-n", directory / "big.bin").lines
    monkeypatch.setenv("MLFLOW_IPFS_CHUNKER", "size-1000")
    assert cli("add", "-q", "-n", directory / "big.bin").lines != expected
    assert cli("add", "-q", "-n", "--profile", "unixfs-v1-2025", directory / "big.bin").lines == expected


@pytest.mark.parametrize(
    "arguments", [(), ("--chunker", "rabin", "x"), ("--chunker", "size-0", "x"), ("--profile", "x", "x"), ("--nope",)]
)
def test_a_wrong_command_line_exits_with_2_and_one_line(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    result = cli("add", *arguments, code=2)
    assert result.stderr.startswith("mlflow-ipfs: ")
    assert result.stderr.count("\n") == 1
    assert "`mlflow-ipfs add --help`" in result.stderr


@pytest.mark.parametrize("arguments", [("--wrap", "-"), ("--preserve-mode", "-"), ("-", "-")])
def test_options_that_do_not_apply_to_standard_input_are_refused(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    result = cli("add", *arguments, code=2)
    assert "standard input" in result.stderr


def test_a_missing_path_is_found_out_before_anything_is_added(cli: CommandLine, directory: Path) -> None:
    outcome = cli("add", directory, "missing", code=3)
    assert outcome.stderr == "mlflow-ipfs: there is no file or directory 'missing'; check the path\n"
    assert not cli.store.exists()


def test_the_store_is_not_added_to_itself(cli: CommandLine, tmp_path: Path) -> None:
    outcome = cli("add", tmp_path, code=2)
    assert "contains the store itself" in outcome.stderr


def test_a_socket_or_pipe_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in cli("add", "pipe", code=1).stderr


def test_an_unreadable_file_is_one_clear_line(ordinary_user: OrdinaryUser) -> None:
    locked = ordinary_user.directory / "locked"
    locked.write_text("secret")
    locked.chmod(0)
    result = ordinary_user.run(_add, ordinary_user.directory / "store", locked)
    assert result[0] == 1
    assert result[1].splitlines()[1:] == [f"mlflow-ipfs: {locked}: Permission denied"]


def test_a_store_that_this_user_may_not_write_to_is_one_clear_line(ordinary_user: OrdinaryUser) -> None:
    store = ordinary_user.directory / "store"
    ordinary_user.run(_add, store, _readable_file(ordinary_user.directory))
    ordinary_user.run(store.chmod, 0o500)
    code, stderr = ordinary_user.run(_add, store, ordinary_user.directory / "file")
    assert code == ExitCode.REFUSED
    assert stderr.startswith("mlflow-ipfs: ")
    assert f"may not read or write {store} (owner " in stderr


def _readable_file(directory: Path) -> Path:
    file = directory / "file"
    file.write_text("x")
    file.chmod(0o644)
    return file


def _add(store: Path, path: Path) -> tuple[int, str]:
    home = {"XDG_CONFIG_HOME": str(store.parent)}  # the one of the tests is not this user's
    result = CliRunner(env=home).invoke(main, ["--store", str(store), "add", str(path)])
    return result.exit_code, result.stderr


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    cli: CommandLine, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("add", directory / "sub")

    def no_room(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Disk, "write", no_room)
    result = cli("add", directory, code=1)
    assert "is full" in result.stderr
    assert result.stderr.startswith("mlflow-ipfs: ")
    assert result.stdout == b""
    assert cli.residue() == []


def test_names_cannot_write_to_the_terminal_what_they_like(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "\x1b[31mred\nnext").write_text("x")
    outcome = cli("add", "\x1b[31mred\nnext")
    assert outcome.lines[0].startswith(r"added  \x1b[31mred\nnext")


def test_a_name_that_is_not_utf8_is_shown_escaped(cli: CommandLine, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff-file")
    (tmp_path / name).write_text("x")
    assert cli("add", name).lines[0].startswith(r"added  \xff-file")


def test_the_amount_of_new_data_is_printed(cli: CommandLine, directory: Path) -> None:
    big = directory / "big.bin"
    (line,) = cli("add", big).lines
    cid = line.rpartition(" ")[2]
    assert line == f"added  {big}    2.6 MB, all new  {cid}"
    assert cli("add", big).lines == [f"added  {big}    2.6 MB, nothing new  {cid}"]
    (directory / "new.bin").write_bytes(os.urandom(100_000))
    (line,) = cli("add", directory).lines
    assert re.fullmatch(rf"added  {directory}    2\.7 MB, 100\.\d kB of it new  bafy[a-z2-7]+", line)
    (directory / "sub" / "newer.txt").write_text("newer")
    (directory / "empty").touch()
    new, empty = cli("add", directory / "sub", directory / "empty").lines
    assert re.fullmatch(
        r"added  \S+ +15 B, 1\d\d B new  bafybei[a-z2-7]+", new
    )  # the directory's node is larger than the files
    assert "  0 B  bafkrei" in empty


def test_json_has_new_bytes_unless_nothing_was_stored(cli: CommandLine, directory: Path) -> None:
    records = [cli("add", "--json", *flags, directory / "big.bin").records[0] for flags in (["-n"], [], [])]
    assert [record["new_bytes"] for record in records] == [None, 2_560_159, 0]
    (line,) = cli("add", "-n", directory / "big.bin").lines
    assert "new" not in line.removeprefix(f"hashed  {directory}")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Return a snapshot directory as the Hugging Face cache has it, with symlinks to files outside."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    (snapshot / "onnx").mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "onnx/model.onnx"):
        (blobs / name.replace("/", "-")).write_text(f"content of {name}")
        (snapshot / name).symlink_to(os.path.relpath(blobs / name.replace("/", "-"), (snapshot / name).parent))
    return snapshot


def test_symlinks_are_counted_and_followed_on_request(cli: CommandLine, hub: Path) -> None:
    links = cli("add", hub)
    assert f"stored 2 symlinks in {hub} as links; use --follow to store what they lead to" in links.stderr
    assert cli("add", hub, "--json").records[0]["symlinks"] == 2
    followed = cli("add", "--follow", hub)
    assert followed.stderr == ""
    assert followed.lines[0].startswith(f"added  {hub}      48 B, all new  ")
    assert cli("cat", f"{followed.cid}/onnx/model.onnx").stdout == b"content of onnx/model.onnx"
    copy = hub.with_name("copy")
    shutil.copytree(hub, copy)
    assert cli("add", "-q", copy).cid == followed.cid


def test_a_symlink_that_is_named_is_followed_and_gives_the_name(cli: CommandLine, hub: Path) -> None:
    added = cli("add", hub / "config.json")
    assert added.stderr.count("\n") == 1  # the new store
    assert cli("cat", added.cid).stdout == b"content of config.json"
    wrapped = cli("add", "-q", "-w", hub / "config.json")
    assert cli("cat", f"{wrapped.cid}/config.json").stdout == b"content of config.json"
    (hub.parent / "latest").symlink_to("abc")
    assert cli("add", "-q", hub.parent / "latest").cid == cli("add", "-q", hub).cid


def test_symlinks_to_nothing_and_loops_are_clear_errors(cli: CommandLine, hub: Path) -> None:
    (hub / "broken").symlink_to("nowhere")
    for arguments in (("--follow", hub), (hub / "broken",), ("-w", hub / "broken")):
        stderr = cli("add", *arguments, code=3).stderr
        assert f"{str(hub / 'broken')!r} is a symlink to 'nowhere', which does not exist" in stderr
    (hub / "broken").unlink()
    (hub / "onnx" / "up").symlink_to("..")
    assert "is a symlink to a directory that contains it" in cli("add", "--follow", hub, code=1).stderr
    (hub / "onnx" / "up").unlink()
    (hub / "a").symlink_to("b")
    (hub / "b").symlink_to("a")
    assert "form a loop" in cli("add", "--follow", hub, code=1).stderr
    assert "stored 4 symlinks" in cli("add", hub).stderr


@pytest.mark.parametrize("flags", [(), ("-n",)])
def test_several_paths_share_one_wrapper(cli: CommandLine, directory: Path, flags: tuple[str, ...]) -> None:
    (directory / "link").unlink()
    outcome = cli("add", "-w", *flags, directory / "sub", directory / "big.bin")
    verb = "hashed" if flags else "added"
    (line,) = outcome.lines
    assert line.startswith(f"{verb}  {directory}/sub, {directory}/big.bin    2.6 MB")
    cli("add", "-q", "-w", directory / "sub", directory / "big.bin")
    assert [entry["name"] for entry in cli("ls", "--json", outcome.cid).records] == ["big.bin", "sub"]
    assert cli("pin", "ls", "--json").records[0]["name"] == "sub, big.bin"
    same = cli("add", "-w", directory / "sub", f"{directory}/./sub", code=2)
    assert "have the same name, and one directory can contain one of them" in same.stderr


@pytest.mark.kubo
def test_the_wrapper_is_kubos(cli: CommandLine, directory: Path, kubo_v1: KuboRepository) -> None:
    paths = directory / "sub", directory / "big.bin"
    expected = kubo_v1("add", "--pin=false", "--recursive", "--quieter", "-w", *paths)
    assert cli("add", "-q", "-w", *paths).lines == [expected]
