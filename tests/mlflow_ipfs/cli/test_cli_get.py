from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.cli.new_files import draft_beside
from mlflow_ipfs.content.mfs import MfsPath
from support.storages import delete_block

if TYPE_CHECKING:
    from support.command_line import CommandLine


def test_get_restores_the_directory_byte_for_byte(cli: CommandLine, directory: Path, root: str) -> None:
    outcome = cli("get", root, "-o", "out")
    assert outcome.lines == [f"wrote  out  {root}"]
    assert subprocess.run(["diff", "--recursive", "--no-dereference", directory, "out"], check=False).returncode == 0
    assert Path("out/link").readlink() == Path("sub/small.txt")


def test_get_without_an_output_path_uses_the_name_of_the_content(cli: CommandLine, root: str) -> None:
    cli("get", f"{root}/sub/small.txt")
    assert Path("small.txt").read_text() == "small\n"
    cli("get", root)
    assert Path(root, "sub", "small.txt").read_text() == "small\n"


def test_get_touches_nothing_that_is_there(cli: CommandLine, root: str) -> None:
    Path("out").write_text("mine")
    Path("dangling").symlink_to("nowhere")
    for name in ("out", "dangling"):
        outcome = cli("get", root, "-o", name, code=1)
        assert f"'{name}' already exists" in outcome.stderr
        assert "--force" in outcome.stderr
    assert Path("out").read_text() == "mine"


def test_get_with_force_replaces_files_and_keeps_other_files_of_a_directory(cli: CommandLine, root: str) -> None:
    Path("out/sub").mkdir(parents=True)
    Path("out/sub/small.txt").write_text("old")
    Path("out/mine").write_text("mine")
    Path("out/sub/yours").mkdir()
    for name in ("out/sub/.hidden", "out/sub/yours/a", "out/sub/yours/b"):
        Path(name).write_text("mine")
    Path("out/elsewhere").symlink_to(".")
    outcome = cli("get", root, "-o", "out", "--force")
    assert "kept 5 other files in out, not part of the content" in outcome.stderr
    assert cli("get", root, "-o", "out", "--force", "--json").records[0]["other_files"] == 5
    listed = cli("verify", root, "--against", "out", "--hidden", code=4)
    assert listed.stdout.decode().count("is on disk, but not in the content") >= 4
    assert Path("out/sub/small.txt").read_text() == "small\n"
    assert Path("out/mine").read_text() == "mine"
    cli("get", f"{root}/sub/small.txt", "-o", "out/mine", "--force")
    assert Path("out/mine").read_text() == "small\n"


def test_get_with_force_writes_into_the_directory_that_a_symlink_leads_to(cli: CommandLine, root: str) -> None:
    Path("disk").mkdir()
    Path("link").symlink_to("disk")
    outcome = cli("get", root, "-o", "link", "-f")
    assert outcome.stderr == ""
    assert Path("link").is_symlink()
    assert Path("disk/sub/small.txt").read_text() == "small\n"
    assert "'link' already exists" in cli("get", root, "-o", "link", code=1).stderr
    assert (
        "is a directory, but the content has a file" in cli("get", f"{root}/big.bin", "-o", "link", "-f", code=1).stderr
    )


def test_get_that_fails_halfway_leaves_nothing(cli: CommandLine, directory: Path) -> None:
    (directory / "outside").symlink_to("/etc/passwd")
    cid = cli("add", "-q", directory).lines[0]
    before = sorted(os.listdir())
    outcome = cli("get", cid, "-o", "out", code=5)
    assert "/etc/passwd" in outcome.stderr
    assert "--allow-outside-links" in outcome.stderr
    assert sorted(os.listdir()) == before
    cli("get", cid, "-o", "out", "--allow-outside-links")
    assert Path("out/outside").readlink() == Path("/etc/passwd")


def test_get_needs_an_existing_parent_directory(cli: CommandLine, root: str) -> None:
    outcome = cli("get", root, "-o", "nowhere/out", code=3)
    assert "the directory 'nowhere' does not exist; create it" in outcome.stderr
    Path("file").write_bytes(b"")
    assert "cannot write 'file/out': 'file' is not a directory" in cli("get", root, "-o", "file/out", code=1).stderr


def test_get_names_what_the_user_named_and_no_draft(cli: CommandLine, root: str) -> None:
    outcome = cli("get", root, "-o", "x" * 250 + ".very-long", code=1)
    assert "the name is invalid or the path too long" in outcome.stderr
    Path("out").write_text("mine")
    assert "out' cannot be created" in (in_the_way := cli("get", root, "-o", "out", "--force", code=1)).stderr
    assert ".mlflow-ipfs-" not in outcome.stderr + in_the_way.stderr
    assert Path("out").read_text() == "mine"


def test_an_interrupted_draft_vanishes(tmp_path: Path) -> None:
    def write_half() -> None:
        with draft_beside(tmp_path / "out") as draft:
            draft.mkdir()
            (draft / "half").write_text("half")
            draft.chmod(0o500)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_what_get_writes_is_the_users_own(cli: CommandLine, root: str) -> None:
    cli("get", root, "-o", "out")
    with Path("out/big.bin").open("r+b") as file:
        file.write(b"changed")
    cli("verify", root)


def test_cat_is_binary_safe(cli: CommandLine, directory: Path, root: str) -> None:
    assert cli("cat", f"{root}/big.bin").stdout == (directory / "big.bin").read_bytes()


@pytest.mark.parametrize(
    ("options", "piece"),
    [
        (("--offset", "10", "--length", "5"), slice(10, 15)),
        (("--offset", "1048570", "--length", "1000"), slice(1048570, 1049570)),
        (("--offset", "2559990"), slice(2559990, None)),
        (("--length", "0"), slice(0, 0)),
        (("--offset", "99999999"), slice(0, 0)),
        (("--length", "1600000"), slice(0, 1600000)),
    ],
)
def test_cat_of_a_part(cli: CommandLine, directory: Path, root: str, options: tuple[str, ...], piece: slice) -> None:
    assert cli("cat", f"{root}/big.bin", *options).stdout == (directory / "big.bin").read_bytes()[piece]


@pytest.mark.parametrize("option", ["--offset", "--length"])
def test_cat_of_less_than_nothing_is_an_error_of_usage(cli: CommandLine, root: str, option: str) -> None:
    cli("cat", root, option, "-1", code=2)


def test_cat_of_a_directory_gives_advice(cli: CommandLine, root: str) -> None:
    outcome = cli("cat", root, code=1)
    assert "is a directory" in outcome.stderr
    assert "mlflow-ipfs get" in outcome.stderr


def test_cat_into_a_closed_pipe_ends_quietly(cli: CommandLine, directory: Path, root: str) -> None:
    with subprocess.Popen(
        [*cli.command, "cat", f"{root}/big.bin"], env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(8) == (directory / "big.bin").read_bytes()[:8]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


@pytest.mark.slow
def test_short_output_into_a_closed_pipe_ends_quietly(cli: CommandLine, root: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [*cli.command, "ls", root], env=cli.environment, stdout=writer, stderr=subprocess.PIPE, check=False, timeout=300
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT RUN: /dev/full is Linux's")
@pytest.mark.slow
def test_output_to_a_full_disk_is_an_error(cli: CommandLine, root: str) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*cli.command, "cat", f"{root}/big.bin"],
            env=cli.environment, stdout=full, stderr=subprocess.PIPE, check=False, timeout=300,
        )  # fmt: skip
    assert process.returncode == 1
    assert process.stderr == b"mlflow-ipfs: No space left on device\n"


def test_ls_aligns_cid_size_and_name(cli: CommandLine, root: str) -> None:
    lines = cli("ls", root).lines
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "7 B  .hidden",
        "2.6 MB  big.bin",
        "13 B  link@",
        "-  sub/",
    ]
    assert len({line.rindex("  ") for line in lines}) == 1


def test_ls_of_a_file_is_the_file(cli: CommandLine, root: str) -> None:
    (line,) = cli("ls", f"{root}/sub/small.txt").lines
    assert line.endswith("  6 B  small.txt")


def test_ls_as_json(cli: CommandLine, root: str) -> None:
    records = cli("ls", "--json", f"{root}/sub").records
    assert [(record["name"], record["kind"], record["size_bytes"]) for record in records] == [
        ("small.txt", "file", 6),
        ("ünï code.txt", "file", 4),
    ]
    assert cli("cat", records[1]["cid"]).stdout == b"odd\n"


def test_an_empty_directory_lists_as_nothing(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cid = cli("add", "-q", "empty").lines[0]
    outcome = cli("ls", cid)
    assert (outcome.stdout, outcome.stderr) == (b"", "")


@pytest.mark.parametrize("spelling", ["{}/sub/small.txt", "/ipfs/{}/sub/small.txt", "ipfs://{}/sub/small.txt"])
def test_a_cid_may_be_spelled_in_each_usual_form(cli: CommandLine, root: str, spelling: str) -> None:
    assert cli("cat", spelling.format(root)).stdout == b"small\n"


def test_a_name_with_spaces_and_umlauts_is_a_path_like_any_other(cli: CommandLine, root: str) -> None:
    assert cli("cat", f"{root}/sub/ünï code.txt").stdout == b"odd\n"


def test_a_cidv0_is_read_as_well(cli: CommandLine, directory: Path) -> None:
    cid = cli("add", "-q", "--profile", "unixfs-v0-2015", directory).lines[0]
    assert cid.startswith("Qm")
    assert cli("cat", f"ipfs://{cid}/sub/small.txt").stdout == b"small\n"


def test_a_mutable_directory_shows_a_cid_only_once_it_is_kept(cli: CommandLine, directory: Path) -> None:
    run = "mfs://mlflow/0/run/artifacts"
    with open_store(Settings(store=cli.store)) as store:
        store.files.put_tree(MfsPath.parse(run), directory)
    hidden, big, link, sub = cli("ls", "--json", run).records
    assert sub == {"name": "sub", "cid": None, "kind": "directory", "size_bytes": 0}
    for record in (hidden, big, link):
        cli("get", record["cid"], "-o", record["name"])
    outcome = cli("ls", run)
    assert outcome.lines[3].split() == ["-", "-", "sub/"]
    assert (
        f"`mlflow-ipfs pin add {run}` pins the present state of the listed directory and prints its CID"
        in outcome.stderr
    )
    cli("pin", "add", run)
    outcome = cli("ls", run)
    assert outcome.stderr == ""
    kept = cli("ls", "--json", run).records[3]["cid"]
    assert outcome.lines[3].split() == [kept, "-", "sub/"]
    cli("verify", kept, "--against", directory / "sub")


def test_a_file_in_a_mutable_directory_shows_its_cid_even_if_its_block_is_lost(cli: CommandLine) -> None:
    run = "mfs://mlflow/0/run/artifacts"
    with open_store(Settings(store=cli.store)) as store:
        lost = store.files.put_stream(MfsPath.parse(f"{run}/small.txt"), io.BytesIO(b"small\n")).cid
        delete_block(store.storage, lost)
    assert [record["cid"] for record in cli("ls", "--json", run).records] == [str(lost)]
    outcome = cli("ls", run)
    assert outcome.lines[0].split()[0] == str(lost)
    assert outcome.stderr == ""
