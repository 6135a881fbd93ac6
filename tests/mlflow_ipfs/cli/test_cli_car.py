from __future__ import annotations

import os
import pty
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs import CID
from mlflow_ipfs.content.car import write_car

if TYPE_CHECKING:
    from support.command_line import CommandLine
    from support.kubo import KuboRepository


def test_a_car_carries_content_to_another_store(cli: CommandLine, root: str, tmp_path: Path) -> None:
    assert cli("car", "export", root, "-o", "x.car").lines == [f"exported  x.car  2.6 MB  {root}"]
    outcome = cli("--store", tmp_path / "other", "car", "import", "x.car")
    assert outcome.lines == [f"imported  {root}"]
    cli("--store", tmp_path / "other", "verify", root)
    assert cli("--store", tmp_path / "other", "pin", "ls", "--json").records[0]["cid"] == root


def test_a_car_may_come_and_go_through_pipes(cli: CommandLine, root: str, tmp_path: Path) -> None:
    data = cli("car", "export", root).stdout
    assert data == cli("car", "export", root, "-o", "-").stdout
    assert cli("--store", tmp_path / "other", "car", "import", "-", "--json", stdin=data).records == [{"cid": root}]


@pytest.mark.kubo
def test_kubo_reads_our_car(cli: CommandLine, root: str, folder: Path, kubo_v1: KuboRepository) -> None:
    cli("car", "export", root, "-o", "x.car")
    kubo_v1("dag", "import", "--pin-roots=false", Path("x.car").absolute())
    assert kubo_v1.run("cat", f"{root}/big.bin") == (folder / "big.bin").read_bytes()


@pytest.mark.kubo
@pytest.mark.parametrize("profile", ["kubo_v0", "kubo_v1"])
def test_we_read_kubos_car(cli: CommandLine, folder: Path, profile: str, request: pytest.FixtureRequest) -> None:
    kubo: KuboRepository = request.getfixturevalue(profile)
    cid = kubo("add", "--pin=false", "--recursive", "--quieter", folder)
    data = kubo.run("dag", "export", "--progress=false", cid)
    assert cli("car", "import", "-", stdin=data).lines == [f"imported  {cid}"]
    cli("get", cid, "-o", "out")
    assert Path("out/big.bin").read_bytes() == (folder / "big.bin").read_bytes()
    assert cli("car", "export", cid).stdout == data


def test_an_existing_file_is_not_overwritten(cli: CommandLine, root: str) -> None:
    Path("x.car").write_text("mine")
    cli("car", "export", root, "-o", "x.car", code=1)
    assert Path("x.car").read_text() == "mine"
    cli("car", "export", root, "-o", "x.car", "--force")
    assert Path("x.car").stat().st_size > 2_560_000


def test_a_terminal_gets_no_binary(cli: CommandLine, root: str) -> None:
    leader, follower = pty.openpty()
    process = subprocess.run(
        [*cli.command, "car", "export", root],
        env=cli.environment, stdout=follower, stderr=subprocess.PIPE, check=False, timeout=60,
    )  # fmt: skip
    os.close(leader)
    os.close(follower)
    assert process.returncode == 2
    assert b"terminal" in process.stderr


@pytest.mark.parametrize("size", [0, 1, 30, 1000, 2_000_000])
def test_a_car_that_ends_early_does_not_verify(cli: CommandLine, root: str, tmp_path: Path, size: int) -> None:
    data = cli("car", "export", root).stdout
    result = cli("--store", tmp_path / "other", "car", "import", "-", stdin=data[:size], code=4)
    assert result.stderr.startswith("mlflow-ipfs: standard input: ")


def test_a_car_with_a_flipped_byte_does_not_verify_and_leaves_nothing(
    cli: CommandLine, root: str, tmp_path: Path
) -> None:
    data = bytearray(cli("car", "export", root).stdout)
    data[-10] ^= 1
    Path("bad.car").write_bytes(data)
    outcome = cli("--store", tmp_path / "other", "car", "import", "bad.car", code=4)
    assert "bad.car" in outcome.stderr
    cli("--store", tmp_path / "other", "ls", root, code=3)


def test_a_car_without_its_root_is_3_and_pins_nothing(cli: CommandLine, root: str, tmp_path: Path) -> None:
    with Path("empty.car").open("wb") as file:
        write_car(file, [CID.parse(root)], [])
    assert root in cli("--store", tmp_path / "other", "car", "import", "empty.car", code=3).stderr
    assert cli("--store", tmp_path / "other", "pin", "ls").stdout == b""


def test_a_missing_car_is_3(cli: CommandLine) -> None:
    assert cli("car", "import", "missing.car", code=3).stderr == "mlflow-ipfs: missing.car: No such file or directory\n"


def test_car_version_2_is_imported(cli: CommandLine, root: str) -> None:
    payload = cli("car", "export", root).stdout
    pragma = bytes.fromhex("0aa16776657273696f6e02")
    header = struct.pack("<16sQQQ", bytes(16), 64, len(payload), 64 + len(payload))
    car = pragma + header + bytes(64 - len(pragma) - len(header)) + payload + b"an index, which nobody reads"
    assert cli("--store", "other", "car", "import", "-", stdin=car).lines[-1].endswith(root)
    cli("--store", "other", "verify", root)
    cli("--store", "third", "car", "import", "-", stdin=car[: len(payload) // 2], code=4)
