from __future__ import annotations

import io
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs import CID
from mlflow_ipfs.content.car.format import CarReader
from support.cars import write_car
from support.command_line import CommandLine
from support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.kubo import KuboRepository


def as_version_2(payload: bytes) -> bytes:
    pragma = bytes.fromhex("0aa16776657273696f6e02")
    header = struct.pack("<16sQQQ", bytes(16), 64, len(payload), 64 + len(payload))
    return pragma + header + bytes(64 - len(pragma) - len(header)) + payload + b"an index, which nobody reads"


def test_a_car_carries_content_to_another_store(cli: CommandLine, root: str, tmp_path: Path) -> None:
    assert cli("car", "export", root, "-o", "x.car").lines == [f"exported  x.car  2.6 MB  {root}"]
    outcome = cli("--store", tmp_path / "other", "car", "import", "x.car")
    assert outcome.lines == [f"imported  {root}"]
    cli("--store", tmp_path / "other", "verify", root)
    assert cli("--store", tmp_path / "other", "pin", "ls", "--json").records[0]["cid"] == root


def test_a_car_needs_a_directory_that_is_there(cli: CommandLine, root: str) -> None:
    outcome = cli("car", "export", root, "-o", "nowhere/x.car", code=3)
    assert "the directory 'nowhere' does not exist; create it" in outcome.stderr
    outcome = cli("car", "export", root, "-o", "x" * 250 + ".car", code=1)
    assert "the name is invalid or the path too long" in outcome.stderr
    assert "partial" not in outcome.stderr


def test_a_car_may_come_and_go_through_pipes(cli: CommandLine, root: str, tmp_path: Path) -> None:
    data = cli("car", "export", root).stdout
    assert data == cli("car", "export", root, "-o", "-").stdout
    assert cli("--store", tmp_path / "other", "car", "import", "-", "--json", stdin=data).records == [
        {"cid": root, "pinned": True, "left_out_blocks": 0, "left_out_bytes": 0}
    ]


@pytest.mark.kubo
def test_kubo_reads_our_car(cli: CommandLine, root: str, directory: Path, kubo_v1: KuboRepository) -> None:
    cli("car", "export", root, "-o", "x.car")
    kubo_v1("dag", "import", "--pin-roots=false", Path("x.car").absolute())
    assert kubo_v1.run("cat", f"{root}/big.bin") == (directory / "big.bin").read_bytes()


@pytest.mark.kubo
@pytest.mark.parametrize("profile", ["kubo_v0", "kubo_v1"])
def test_we_read_kubos_car(cli: CommandLine, directory: Path, profile: str, request: pytest.FixtureRequest) -> None:
    kubo: KuboRepository = request.getfixturevalue(profile)
    cid = kubo("add", "--pin=false", "--recursive", "--quieter", directory)
    data = kubo.run("dag", "export", "--progress=false", cid)
    assert cli("car", "import", "-", stdin=data).lines == [f"imported  {cid}"]
    cli("get", cid, "-o", "out")
    assert Path("out/big.bin").read_bytes() == (directory / "big.bin").read_bytes()
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
        env=cli.environment, stdout=follower, stderr=subprocess.PIPE, check=False, timeout=300,
    )  # fmt: skip
    os.close(leader)
    os.close(follower)
    assert process.returncode == 2
    assert b"terminal" in process.stderr


@pytest.mark.parametrize("size", [0, 1, 30, 1000, 2_000_000])
def test_a_car_that_ends_early_does_not_verify(cli: CommandLine, root: str, tmp_path: Path, size: int) -> None:
    data = cli("car", "export", root).stdout
    result = cli("--store", tmp_path / "other", "car", "import", "-", stdin=data[:size], code=4)
    assert result.stderr.splitlines()[1].startswith("mlflow-ipfs: standard input: ")


def test_a_car_with_a_flipped_byte_does_not_verify_and_pins_nothing(
    cli: CommandLine, root: str, tmp_path: Path
) -> None:
    good = cli("car", "export", root).stdout
    data = bytearray(good)
    data[-10] ^= 1
    Path("bad.car").write_bytes(data)
    outcome = cli("--store", tmp_path / "other", "car", "import", "bad.car", code=4)
    assert "bad.car: the block at byte" in outcome.stderr
    assert "Kept 9 blocks" in outcome.stderr
    assert cli("--store", tmp_path / "other", "pin", "ls").stdout == b""
    Path("bad.car").write_bytes(good)
    cli("--store", tmp_path / "other", "car", "import", "bad.car")


def interrupt_import(
    cli: CommandLine, python: list[str], store: Path, data: bytes, is_time: Callable[[], object]
) -> str:
    """Send part of a CAR to an import, interrupt it when ``is_time`` is true, and return its standard error."""
    process = subprocess.Popen(
        [sys.executable, *python, "--store", store, "car", "import", "-"],
        env=cli.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell's job would ignore it
    )  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(data)
        process.stdin.flush()
        wait_until(is_time, timeout_seconds=30, what="the first blocks")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        errors = process.stderr.read().decode()
    assert re.search(r"Kept [\d,]+ block", errors)
    assert "Traceback" not in errors
    return errors


def test_an_interrupted_import_reports_what_is_kept(cli: CommandLine, root: str, tmp_path: Path) -> None:
    car, other = cli("car", "export", root).stdout, tmp_path / "other"
    script = (
        "import sys; from mlflow_ipfs.content.car import import_steps; from mlflow_ipfs.cli import main;"
        "import_steps.STEP_BLOCKS = 2; main()"
    )
    errors = interrupt_import(cli, ["-c", script], other, car[:2_400_000], lambda: list(other.glob("files/*/*.car")))
    command = shlex.split(errors.splitlines()[1].rpartition("pipe it to: ")[2])
    assert cli(*command[1:], stdin=car[int(command[6]) :]).lines == [f"imported  {root}"]


def test_an_import_interrupted_within_its_first_step_keeps_what_came(
    cli: CommandLine, root: str, tmp_path: Path
) -> None:
    car, other = cli("car", "export", root).stdout, tmp_path / "other"

    def has_draft() -> bool:
        return sum(path.stat().st_size for path in other.glob("tmp/*/*")) > 1_000_000

    interrupt_import(cli, ["-m", "mlflow_ipfs"], other, car[:2_400_000], has_draft)


@pytest.mark.parametrize("version", [1, 2])
def test_a_broken_stream_is_resumed_by_the_command_that_it_printed(
    cli: CommandLine, root: str, tmp_path: Path, version: int
) -> None:
    car = cli("car", "export", root).stdout
    car = car if version == 1 else as_version_2(car)
    other = tmp_path / "with a space"
    for end in (500_000, 1_500_000):
        broken = cli("--store", other, "car", "import", "-", stdin=car[:end], code=4)
        command = shlex.split(broken.stderr.rpartition("pipe it to: ")[2])
        assert command[:6] == ["mlflow-ipfs", "--store", str(other), "car", "import", "--from-byte"]
        start = int(command[6])
        assert f"--range {start}- URL" in broken.stderr
        again = cli(*command[1:], stdin=car[start : start + 1_100_000], code=4)
        command = shlex.split(again.stderr.rpartition("pipe it to: ")[2])
        assert int(command[6]) > start
        assert cli(*command[1:], stdin=car[int(command[6]) :]).lines == [f"imported  {root}"]
        cli("--store", other, "verify", root)
    wrong = cli(*command[1:], stdin=car[int(command[6]) + 1 :], code=4).stderr
    assert f"check whether the stream really begins at byte {command[6]}" in wrong
    assert "No blocks were kept" in wrong


def test_a_stream_that_breaks_between_two_blocks_can_be_resumed(cli: CommandLine, root: str, tmp_path: Path) -> None:
    car = cli("car", "export", root).stdout
    reader = CarReader(io.BytesIO(car))
    next(iter(reader))
    broken = cli("--store", tmp_path / "other", "car", "import", "-", stdin=car[: reader.frame_offset], code=3)
    command = shlex.split(broken.stderr.rpartition("pipe it to: ")[2])
    assert cli(*command[1:], stdin=car[reader.frame_offset :]).lines == [f"imported  {root}"]


def test_pieces_are_joined_and_parts_are_taken_one_by_one(cli: CommandLine, root: str) -> None:
    car = cli("car", "export", root).stdout
    for name, piece in (("a", car[:700_000]), ("b", b""), ("c", car[700_000:])):
        Path(name).write_bytes(piece)
    assert "c: " in cli("--store", "one", "car", "import", "c", code=4).stderr
    assert cli("--store", "one", "car", "import", "--join", "a", "b", "c").lines == [f"imported  {root}"]
    assert cli("--store", "two", "car", "import", "--join", "a", "-", stdin=car[700_000:]).lines
    blocks = list(CarReader(io.BytesIO(car)))
    for name, part in (("x.car", blocks[1::2]), ("y.car", blocks[::2])):
        with Path(name).open("wb") as file:
            write_car(file, [CID.parse(root)], part)
    cli("--store", "three", "car", "import", "x.car", code=3)
    assert cli("--store", "three", "car", "import", "y.car").lines == [f"imported  {root}"]
    assert cli("--store", "four", "car", "import", "x.car", "y.car").lines == [f"imported  {root}"]
    cli("--store", "four", "verify", root)


@pytest.mark.parametrize(
    "arguments",
    [
        ["-", "-"],
        ["--root", "bafkqaaa", "x.car"],
        ["--to-byte", "10", "x.car"],
        ["--from-byte", "10", "--to-byte", "10", "x.car"],
        ["--from-byte", "10", "x.car", "y.car"],
        ["--from-byte", "10", "--root", "x", "x.car"],
        ["--from-byte", "0", "x.car"],
        [],
    ],
)
def test_options_of_import_that_make_no_sense_are_refused(cli: CommandLine, arguments: list[str]) -> None:
    cli("car", "import", *arguments, code=2)
    assert not cli.store.exists()


def test_a_car_without_roots_pins_nothing_and_reports_it(cli: CommandLine, root: str) -> None:
    with Path("x.car").open("wb") as file:
        write_car(file, [], [(CID.of(b"x"), b"x")])
    assert "nothing was pinned" in cli("car", "import", "x.car").stderr
    car = cli("car", "export", root).stdout
    reader = CarReader(io.BytesIO(car))
    rest = cli("car", "import", "--from-byte", str(reader.frame_offset), "-", stdin=car[reader.frame_offset :])
    assert (rest.stdout, "no --root was given" in rest.stderr) == (b"", True)


@pytest.mark.parametrize("start", [0, 1, 57, 100_000, 2_560_950])
def test_an_export_through_a_pipe_resumes_at_any_byte(cli: CommandLine, root: str, start: int) -> None:
    car = cli("car", "export", root).stdout
    assert cli("car", "export", root, "--from-byte", str(start)).stdout == car[start:]
    cli("car", "export", root, "--from-byte", str(len(car) + 1), code=1)
    cli("car", "export", root, "--from-byte", "1", "-o", "x.car", code=2)


def test_a_killed_export_is_resumed(cli: CommandLine, root: str) -> None:
    car = cli("car", "export", root).stdout
    draft = Path("x.car.mlflow-ipfs-partial")
    draft.write_bytes(car[:2_000_000])
    outcome = cli("car", "export", root, "-o", "x.car", "--json")
    assert outcome.records[0]["size_bytes"] == len(car)
    assert 1_000_000 < outcome.records[0]["resumed_bytes"] < 2_000_000
    assert "resumed after 1." in outcome.stderr
    assert Path("x.car").read_bytes() == car
    draft.write_bytes(b"something else")
    assert "started again from the beginning" in cli("car", "export", root, "-o", "x.car", "-f").stderr
    assert Path("x.car").read_bytes() == car
    assert not draft.exists()


def test_an_interrupted_export_reports_the_partial_file(cli: CommandLine, root: str, tmp_path: Path) -> None:
    """The export is stopped by a damaged chunk; any other error has the same effect."""
    [path] = [path for path in cli.store.glob("files/*/*") if path.stat().st_size > 2_000_000 and path.suffix != ".car"]
    path.chmod(0o600)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"?")
    outcome = cli("car", "export", root, "-o", "x.car", code=4)
    assert "the partial export is kept in x.car.mlflow-ipfs-partial" in outcome.stderr
    assert not Path("x.car").exists()
    cli("add", "-q", "--hidden", tmp_path / "data")
    assert "resumed after 2.1 MB" in cli("car", "export", root, "-o", "x.car").stderr


def test_a_car_without_its_root_is_3_and_pins_nothing(cli: CommandLine, root: str, tmp_path: Path) -> None:
    with Path("empty.car").open("wb") as file:
        write_car(file, [CID.parse(root)], [])
    assert root in cli("--store", tmp_path / "other", "car", "import", "empty.car", code=3).stderr
    assert cli("--store", tmp_path / "other", "pin", "ls").stdout == b""


@pytest.mark.parametrize("source", ["x.car", "-"])
def test_what_no_root_needs_is_left_out_and_counted(cli: CommandLine, root: str, source: str) -> None:
    blocks = list(CarReader(io.BytesIO(cli("car", "export", root).stdout)))
    junk = [(CID.of(data), data) for data in (bytes(1_000_000), b"junk")]
    with Path("x.car").open("wb") as file:
        write_car(file, [CID.parse(root)], [junk[0], *reversed(blocks), junk[1]])
    stdin = Path("x.car").read_bytes() if source == "-" else b""
    outcome = cli("--store", "other", "car", "import", source, "--json", stdin=stdin)
    assert outcome.records == [{"cid": root, "pinned": True, "left_out_blocks": 2, "left_out_bytes": 1_000_004}]
    assert "skipped 2 blocks (1.0 MB) that no root needs; --all-blocks keeps them" in outcome.stderr
    cli("--store", "other", "verify", root)
    whole = cli("--store", "third", "car", "import", "--all-blocks", source, stdin=stdin)
    assert (whole.lines, "skipped" in whole.stderr) == ([f"imported  {root}"], False)


def test_a_missing_car_is_3(cli: CommandLine) -> None:
    assert cli("car", "import", "missing.car", code=3).stderr == "mlflow-ipfs: missing.car: No such file or directory\n"


def test_car_version_2_is_imported(cli: CommandLine, root: str) -> None:
    payload = cli("car", "export", root).stdout
    car = as_version_2(payload)
    assert cli("--store", "other", "car", "import", "-", stdin=car).lines[-1].endswith(root)
    cli("--store", "other", "verify", root)
    cli("--store", "third", "car", "import", "-", stdin=car[: len(payload) // 2], code=4)


def test_the_roots_are_pinned_unless_the_user_says_otherwise(cli: CommandLine, root: str, tmp_path: Path) -> None:
    cli("car", "export", root, "-o", "x.car")
    other = CommandLine(tmp_path / "other")
    outcome = other("car", "import", "--no-pin", "x.car")
    assert outcome.lines == [f"imported  {root}"]
    assert "nothing was pinned, because of --no-pin; gc removes the content after its grace period" in outcome.stderr
    assert other("pin", "ls").lines == []
    assert other("car", "import", "--no-pin", "x.car", "--json").records[0]["pinned"] is False
    assert other("car", "import", "x.car", "--json").records[0]["pinned"] is True
    assert other("pin", "ls", "--json").records[0]["cid"] == root
    other("pin", "rm", root)
    other("gc", "--grace", "0")
    other("verify", root, code=3)


def test_the_command_to_continue_keeps_no_pin(cli: CommandLine, root: str, tmp_path: Path) -> None:
    car = cli("car", "export", root).stdout
    broken = cli("--store", tmp_path / "other", "car", "import", "--no-pin", "-", stdin=car[:1_500_000], code=4)
    assert " --no-pin " in broken.stderr.rpartition("pipe it to: ")[2]
