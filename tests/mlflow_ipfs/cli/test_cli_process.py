"""Tests of the installed command as a process: pipes, signals, exit codes and a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.command_line import TIMEOUT_SECONDS
from support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.command_line import CommandLine

# What takes long to import and no command needs that works with the store alone.
SLOW_IMPORTS = {"alembic", "fastapi", "mlflow", "numpy", "pandas", "pyarrow", "requests", "sqlalchemy", "torch"}


@pytest.mark.slow
def test_every_command_works_and_every_exit_code_comes_out(cli: CommandLine, directory: Path) -> None:
    run = cli.in_a_process
    root = run("add", "-q", "--hidden", directory).lines[0]
    assert run("ls", root).lines[-1].endswith("sub/")
    assert run("cat", f"{root}/big.bin").stdout == (directory / "big.bin").read_bytes()
    run("get", root, "-o", "out")
    run("verify", root, "--against", "out")
    assert run("pin", "ls", "--json").records[0]["cid"] == root
    car = run("car", "export", root).stdout
    run("--store", "other", "car", "import", "-", stdin=car)
    run("gc")
    run("get", root, "-o", "out", code=1)
    run("get", "nonsense", code=2)
    run("get", f"{root}/nope", code=3)
    run("--store", "other", "car", "import", "-", stdin=car[:-1], code=4)
    run("pin", "rm", root, "--owner", "model-version:x/y/1", code=5)


@pytest.mark.slow
def test_errors_as_json_go_to_stderr(cli: CommandLine) -> None:
    for arguments, kind, code in (
        (("ls", "--json", "nonsense"), "InvalidCIDError", 2),
        (("add", "--json", "missing"), "NotFoundError", 3),
        (("add", "--json"), "UsageError", 2),
    ):
        outcome = cli.in_a_process(*arguments, code=code)
        assert outcome.stdout == b""
        error = json.loads(outcome.stderr)["error"]
        assert (error["type"], error["exit_code"]) == (kind, code)
        assert error["message"]


@pytest.mark.slow
def test_the_script_and_the_module_are_the_same_command() -> None:
    script = Path(sys.executable).with_name("mlflow-ipfs")
    outputs = [
        subprocess.run([*command, "--help"], capture_output=True, check=True, timeout=300).stdout
        for command in ([script], [sys.executable, "-m", "mlflow_ipfs"])
    ]
    assert outputs[0] == outputs[1]
    assert b"Exit codes:" in outputs[0]


@pytest.mark.parametrize("arguments", [("--help",), ("add", "--only-hash", "-q", "-")])
@pytest.mark.slow
def test_it_starts_without_importing_what_it_does_not_need(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mlflow_ipfs", *arguments]
    done = subprocess.run(
        command, env=cli.environment, input=b"", capture_output=True, check=True, timeout=TIMEOUT_SECONDS
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.decode().splitlines()}
    assert {"click", "mlflow_ipfs"} <= imported
    assert imported & SLOW_IMPORTS == set()


@pytest.fixture
def halfway(cli: CommandLine, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a command that has read a part of its standard input and waits for the rest."""
    with subprocess.Popen(
        [*cli.command, *request.param],
        env=cli.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell's job would ignore it
    ) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(3 << 20))
        process.stdin.flush()
        wait_until(
            lambda: any(path.is_file() for path in (cli.store / "tmp").rglob("*")), timeout_seconds=30, what="a draft"
        )
        yield process
        process.kill()


@pytest.mark.parametrize("halfway", [("add", "-")], indirect=True)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_an_interrupted_add_leaves_nothing(
    cli: CommandLine, halfway: subprocess.Popen[bytes], number: signal.Signals, code: int
) -> None:
    halfway.send_signal(number)
    stdout, stderr = halfway.communicate(timeout=300)
    assert halfway.returncode == code
    assert stdout == b""
    assert stderr.startswith(b"mlflow-ipfs: created the store ")
    assert stderr.splitlines()[1:] == ([b"mlflow-ipfs: interrupted"] if number == signal.SIGINT else [])
    assert cli.residue() == []
    assert cli("gc", "--dry-run", "--json").records[-1]["deletable_blocks"] == 0


@pytest.mark.parametrize("halfway", [("add", "-")], indirect=True)
@pytest.mark.slow
def test_what_a_killed_add_left_goes_with_the_next_command(cli: CommandLine, halfway: subprocess.Popen[bytes]) -> None:
    halfway.kill()
    halfway.wait(30)
    assert cli.residue()
    findings = {record["topic"]: record for record in cli("doctor", "--json").records}
    assert (findings["sessions"]["dead"], findings["sessions"]["state"]) == (1, "note")
    cli("pin", "ls")
    assert cli.residue() == []


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_and_gone_at_the_end(cli: CommandLine) -> None:
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*cli.command, "add", "-q", "-"],
        env=cli.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=follower,
    ) as process:  # fmt: skip
        os.close(follower)
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(8):
            process.stdin.write(bytes(1 << 20))
            process.stdin.flush()
            time.sleep(0.15)
        process.stdin.close()
        shown = _read_terminal(leader)
        assert process.stdout.read().startswith(b"bafybei")
        assert process.wait(30) == 0
    assert "adding standard input  " in shown
    assert "MB/s" in shown
    last = shown.split("\r")[-2:]
    assert last[0].strip() == ""
    assert last[1] == ""


def _read_terminal(leader: int) -> str:
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # EIO: the other end is closed
            part = b""
        if not part:
            os.close(leader)
            return b"".join(parts).decode()
        parts.append(part)


@pytest.mark.slow
def test_no_progress_goes_into_a_pipe(cli: CommandLine, directory: Path) -> None:
    cli("add", "-", stdin=b"so that there is a store")
    (directory / "link").unlink()
    assert cli.in_a_process("add", "--hidden", directory).stderr == ""


def test_a_variable_that_is_not_a_setting_is_reported_once(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_STOER", "local:/x")
    outcome = cli.in_a_process("add", "-n", "-")
    assert outcome.stderr.startswith("mlflow-ipfs: MLFLOW_IPFS_STOER is not a setting")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["kubo:/ip4/127.0.0.1/tcp/5001", "nonsense"])
def test_a_setting_without_a_usable_value_is_2(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MLFLOW_IPFS_FREEZE", "nonsense")
    assert "MLFLOW_IPFS_FREEZE" in cli("ls", "bafkqaaa", code=2).stderr
    monkeypatch.delenv("MLFLOW_IPFS_FREEZE")
    if value.startswith("kubo:"):
        assert "Kubo" in cli("--store", value, "pin", "ls", code=2).stderr


@pytest.mark.parametrize("arguments", [(), ("pin",), ("car",)])
@pytest.mark.slow
def test_a_group_without_a_command_shows_its_help_as_it_is(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    bare, asked = cli.in_a_process(*arguments, code=2), cli.in_a_process(*arguments, "--help")
    assert bare.stderr == asked.stdout.decode()


@pytest.mark.slow
def test_bash_completes_commands_and_options(cli: CommandLine) -> None:
    script = Path("completion.bash")
    script.write_bytes(cli.in_a_process("completion", "bash").stdout)
    binary = Path(sys.executable).parent

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("mlflow-ipfs", *words))
        ask = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _mlflow_ipfs_completion mlflow-ipfs; echo ${{COMPREPLY[@]}}"
        environment = cli.environment | {"PATH": f"{binary}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", ask], env=environment, capture_output=True, check=True, timeout=300)
        return done.stdout.decode().split()

    assert complete("pi") == ["pin"]
    assert complete("pin", "") == ["add", "ls", "rm"]
    assert complete("verify", "--ag") == ["--against"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]


def test_the_other_shells_have_scripts(cli: CommandLine) -> None:
    assert cli("completion", "zsh").lines[0] == "#compdef mlflow-ipfs"
    assert "complete --no-files --command mlflow-ipfs" in cli("completion", "fish").stdout.decode()
    assert "'bash', 'zsh', 'fish'" in cli("completion", "tcsh", code=2).stderr


@pytest.mark.slow
def test_ctrl_c_while_modules_load_prints_no_traceback(cli: CommandLine, tmp_path: Path) -> None:
    marker = tmp_path / "loading"
    for slow, code in (("click", -signal.SIGINT), ("mlflow", 130)):
        package = tmp_path / f"slow-{slow}"
        package.mkdir()
        (package / f"{slow}.py").write_text(
            f"import pathlib, time\npathlib.Path({str(marker)!r}).touch()\ntime.sleep(60)\n"
        )
        cli("add", "-", stdin=b"so that there is a store")
        with subprocess.Popen(
            [*cli.command, "verify", "models:/m/1"],
            env=cli.environment | {"PYTHONPATH": f"{package}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a shell's job would ignore it
        ) as process:
            wait_until(marker.exists, timeout_seconds=30, what=f"{slow} is being imported")
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=300)
        assert process.returncode == code
        assert stderr in {b"", b"mlflow-ipfs: interrupted\n"}
        marker.unlink()
