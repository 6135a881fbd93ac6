from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from support.clones import flip_bytes_of
from support.storages import delete_block

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine


def test_sound_content_is_counted(cli: CommandLine, root: str) -> None:
    outcome = cli("verify", root)
    assert outcome.lines == [f"root      {root}", "intact    10 blocks, 2.6 MB", "verified  every block"]
    assert outcome.stderr == ""


def test_a_path_verifies_what_is_there(cli: CommandLine, root: str) -> None:
    cid = cli("ls", "--json", f"{root}/sub").records[0]["cid"]
    outcome = cli("verify", f"{root}/sub/small.txt")
    assert outcome.lines == [
        f"content   {root}/sub/small.txt",
        f"root      {cid}",
        "intact    1 block, 6 B",
        "verified  every block",
    ]


def test_a_damaged_block_is_named_with_its_path(cli: CommandLine, root: str, directory: Path) -> None:
    flip_bytes_of(cli.store, (directory / "big.bin").read_bytes()[1 << 20 :])
    outcome = cli("verify", root, "--json", code=4)
    (record,) = outcome.records
    (problem,) = record["problems"]
    assert (record["ok"], record["blocks"]) == (False, 9)
    assert problem["path"] == "big.bin"
    assert problem["cid"].startswith("bafkrei")
    assert record["affected"] == [{"kind": "pin", "name": "user", "cid": root, "damaged": [problem["cid"]]}]
    text = cli("verify", root, code=4)
    assert text.lines[-1] == f"affected  pin  user  {root}"
    assert any(problem["cid"] in line for line in text.lines)
    assert any("in big.bin: " in line for line in text.lines)
    assert text.stderr == f"mlflow-ipfs: verification of {root} failed: 1 problem found\n"
    assert "verified" not in text.stdout.decode()


def test_reading_through_the_damage_is_refused_with_4(cli: CommandLine, root: str, directory: Path) -> None:
    flip_bytes_of(cli.store, (directory / "big.bin").read_bytes()[1 << 20 :])
    assert cli("cat", f"{root}/big.bin", code=4).stdout != (directory / "big.bin").read_bytes()
    assert "mlflow-ipfs: " in cli("get", root, "-o", "out", code=4).stderr
    cli("car", "export", root, "-o", "x.car", code=4)
    cli("cat", f"{root}/sub/small.txt")


def test_the_same_directory_on_disk_agrees(cli: CommandLine, root: str, directory: Path) -> None:
    assert cli("verify", root, "--against", directory).lines[-1] == f"verified  every block; identical to {directory}"


def test_each_difference_on_disk_is_named(cli: CommandLine, root: str, directory: Path) -> None:
    (directory / "sub" / "small.txt").write_text("Small\n")
    (directory / "link").unlink()
    (directory / "new").write_text("new")
    (record,) = cli("verify", root, "--against", directory, "--json", code=4).records
    assert record["affected"] == []  # nothing is damaged
    assert {problem["path"] for problem in record["problems"]} == {"sub/small.txt", "link", "new"}


def test_many_differences_are_counted(cli: CommandLine, root: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    for number in range(30):
        (wrong / f"{number}.txt").write_text("")
    problems = cli("verify", root, "--against", wrong, "--json", code=4).records[0]["problems"]
    lines = cli("verify", root, "--against", wrong, code=4).lines
    assert lines[-1] == f"problem   {len(problems) - 10} more; see --json"
    assert len(lines) == 2 + 2 * 10 + 1


def test_hidden_entries_that_add_skips_are_not_a_difference(cli: CommandLine, directory: Path) -> None:
    (directory / "sub" / ".DS_Store").write_bytes(b"x")
    cid = cli("add", "-q", directory).cid
    outcome = cli("verify", cid, "--against", directory)
    assert outcome.lines[-1].endswith(f"; identical to {directory}")
    assert f"skipped 2 hidden entries in {directory}, not in the content; use --hidden to compare" in outcome.stderr
    [record] = cli("verify", cid, "--against", directory, "--hidden", "--json", code=4).records
    assert [problem["path"] for problem in record["problems"]] == [".hidden", "sub/.DS_Store"]
    assert "--against" in cli("verify", cid, "--hidden", code=2).stderr


def test_a_hidden_name_of_the_content_is_always_compared(cli: CommandLine, root: str, directory: Path) -> None:
    (directory / ".hidden").write_text("other\n")
    [record] = cli("verify", root, "--against", directory, "--json", code=4).records
    assert [problem["path"] for problem in record["problems"]] == [".hidden"]


def test_a_file_may_be_compared_whatever_its_chunker_was(cli: CommandLine, directory: Path) -> None:
    cid = cli("add", "-q", "--chunker", "size-1000", directory / "big.bin").lines[0]
    cli("verify", cid, "--against", directory / "big.bin")


def test_nothing_to_compare_with_is_3(cli: CommandLine, root: str) -> None:
    assert "'missing'" in cli("verify", root, "--against", "missing", code=3).stderr


def test_a_missing_block_below_a_known_root_does_not_verify(cli: CommandLine, root: str) -> None:
    lost = cli("ls", "--json", f"{root}/sub").records[0]["cid"]
    with open_local_storage(cli.store) as storage:
        assert delete_block(storage, CID.parse(lost))
    (record,) = cli("verify", root, "--json", code=4).records
    assert [(problem["cid"], problem["path"]) for problem in record["problems"]] == [(lost, "sub/small.txt")]


def test_a_name_whose_own_root_is_missing_is_affected(cli: CommandLine, root: str) -> None:
    big = next(record["cid"] for record in cli("ls", "--json", root).records if record["name"] == "big.bin")
    with open_local_storage(cli.store) as storage:
        storage.refs.set("datasets/big", CID.parse(big), expected_version=0)
        assert delete_block(storage, CID.parse(big))
    lines = cli("verify", root, code=4).lines
    assert lines[-2:] == [f"affected  ref  datasets/big  {big}", f"affected  pin  user  {root}"]


def test_verifying_changes_nothing(cli: CommandLine, root: str, directory: Path) -> None:
    before = cli("gc", "--dry-run", "--json").records
    cli("verify", root, "--against", directory)
    assert cli("gc", "--dry-run", "--json").records == before
