"""Tests of `models:/`, `runs:/` and `mfs://` on the command line, with real MLflow databases and a real server."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from support.command_line import CommandLine, Outcome
from support.mlflow_server import clean_environment
from support.processes import find_free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import StartServer

pytestmark = pytest.mark.slow

OTHER_CID = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"

WORKER = """
import json, pathlib, sys
import mlflow
from click.testing import CliRunner
from mlflow_ipfs.cli import main

def make_model(directory):
    mlflow.set_experiment("digits")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(directory, "model")
        mlflow.log_text("hello", "notes/hello.txt")
        mlflow.log_text("space", "notes/with space.txt")
    client = mlflow.MlflowClient()
    client.create_registered_model("digits")
    client.create_registered_model("nothing")
    version = client.create_model_version("digits", f"runs:/{run.info.run_id}/model", run_id=run.info.run_id)
    client.set_registered_model_alias("digits", "champion", version.version)
    mlflow.set_experiment(experiment_id=client.create_experiment("plain", pathlib.Path("plain").absolute().as_uri()))
    with mlflow.start_run() as plain:
        mlflow.log_text("hello", "hello.txt")
    mlflow.set_experiment("digits")
    with mlflow.start_run() as modern:
        model = mlflow.initialize_logged_model("network", source_run_id=modern.info.run_id)
        mlflow.finalize_logged_model(model.model_id, "READY")
        client.log_model_artifacts(model.model_id, directory)
    ids = run.info.run_id, plain.info.run_id, modern.info.run_id, model.model_id
    return client.get_model_version_download_uri("digits", "1"), run.info.artifact_uri, *ids

answers = sys.stdout
sys.stdout = sys.stderr  # MLflow prints now and then
for line in sys.stdin:
    arguments = json.loads(line)
    if isinstance(arguments, str) and arguments.startswith("log "):
        answer = mlflow.MlflowClient().log_text(arguments.removeprefix("log "), "hello", "hello.txt")
    elif isinstance(arguments, str):
        answer = make_model(arguments)
    else:
        result = CliRunner().invoke(main, arguments)
        answer = result.exit_code, result.stdout, result.stderr
    print(json.dumps(answer), file=answers, flush=True)
"""


class Worker:
    """A process that imports MLflow once and runs several commands, because the import takes longer than a command."""

    def __init__(self, cli: CommandLine, tracking_uri: str) -> None:
        with (cli.store.parent / "worker.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=clean_environment(MLFLOW_IPFS_STORE=f"local:{cli.store}", MLFLOW_TRACKING_URI=tracking_uri),
                cwd=cli.store.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, question: object) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(question), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        with self.process:
            self.process.kill()


@dataclass(frozen=True)
class Project:
    """A run with a directory `model` and a file `notes/hello.txt`, and version 1 of `digits` made of `model`."""

    cli: CommandLine
    tracking_uri: str
    worker: Worker
    model: Path
    location: str
    artifact_uri: str
    run_id: str
    plain_run_id: str
    modern_run_id: str
    logged_model_id: str

    @property
    def cid(self) -> str:
        return self.location.rpartition("@")[2]

    def run(self, *commands: tuple[str, ...]) -> list[Outcome]:
        answers = [self.worker.ask(command) for command in commands]
        return [Outcome(code, stdout.encode(), stderr) for code, stdout, stderr in answers]


@contextlib.contextmanager
def make_project(cli: CommandLine, tracking_uri: str) -> Iterator[Project]:
    model = cli.store.parent / "model"
    (model / "data").mkdir(parents=True)
    (model / "MLmodel").write_text("flavors: {}\n")
    (model / ".hidden").write_text("hidden\n")
    (model / "data" / "weights.bin").write_bytes(bytes(range(256)) * 8192)
    worker = Worker(cli, tracking_uri)
    try:
        yield Project(cli, tracking_uri, worker, model, *worker.ask(str(model)))
    finally:
        worker.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("project")
    with make_project(CommandLine(directory / "store"), f"ipfs+sqlite:///{directory}/mlflow.db") as made:
        yield made


def test_a_version_is_found_by_number_and_by_alias_and_verifies(project: Project) -> None:
    names = (
        "models:/digits/1",
        "models:/digits@champion",
        "models:/digits/latest",
        f"{project.artifact_uri}/model/@{project.cid}",
    )
    for outcome in project.run(*(("verify", "--json", name, "--against", str(project.model)) for name in names)):
        assert outcome.code == 0, outcome
        assert outcome.records[0]["cid"] == project.cid


def test_tags_that_contradict_the_content_of_a_version_do_not_verify(project: Project) -> None:
    """MLflow's own programs can write to the database of the registry."""
    database = project.cli.store.parent / "mlflow.db"

    def set_tag(key: str, value: str) -> str:
        with closing(sqlite3.connect(database)) as connection, connection:
            [before] = connection.execute("SELECT value FROM model_version_tags WHERE key = ?", [key]).fetchone() or [
                ""
            ]
            connection.execute("UPDATE model_version_tags SET value = ? WHERE key = ?", [value, key])
        return str(before)

    for key, wrong in (("ipfs.cid", "bafybogus"), ("ipfs.cid", OTHER_CID), ("ipfs.size_bytes", "7")):
        right = set_tag(key, wrong)
        shown, fields, by_cid = project.run(
            ("verify", "models:/digits@champion"), ("verify", "models:/digits/1", "--json"), ("verify", project.cid)
        )
        set_tag(key, right)
        assert (shown.code, fields.code, by_cid.code) == (4, 4, 0)
        assert f"the tag {key} is {wrong}, but" in shown.stdout.decode()
        assert "but the version has 1 wrong tag" in shown.stderr
        assert fields.records[0]["ok"] is False
        assert len(fields.records[0]["wrong_tags"]) == 1
    (outcome,) = project.run(("verify", "models:/digits/1", "--json"))
    assert (outcome.code, outcome.records[0]["ok"], outcome.records[0]["wrong_tags"]) == (0, True, [])


def test_the_file_that_mlflow_adds_to_a_download_is_not_a_difference(project: Project) -> None:
    copy = project.cli.store.parent / "downloaded"
    shutil.copytree(project.model, copy)
    (copy / "registered_model_meta").write_text("MLflow writes this beside every version that it downloads\n")
    command = ("verify", "models:/digits@champion", "--against", str(copy))
    assert project.run(command)[0].code == 0
    (copy / "data" / "registered_model_meta").write_text("not where MLflow writes it\n")
    (outcome,) = project.run(command)
    assert outcome.code == 4
    assert "data/registered_model_meta: is on disk, but not in the content" in outcome.stdout.decode()


def test_the_cid_of_a_version_a_run_and_a_part_is_printed(project: Project) -> None:
    outcomes = project.run(
        ("cid", "models:/digits@champion"),
        ("cid", f"runs:/{project.run_id}/model"),
        ("cid", f"{project.artifact_uri}/model"),
        ("cid", f"models:/{project.logged_model_id}"),
    )
    assert [outcome.lines for outcome in outcomes] == [[project.cid]] * 4


def test_a_run_may_be_named_with_percent_escapes(project: Project) -> None:
    literal, decoded, missing = project.run(
        ("cat", f"runs:/{project.run_id}/notes/with space.txt"),
        ("cat", f"runs:/{project.run_id}/notes/with%20space.txt"),
        ("cat", f"runs:/{project.run_id}/notes/with%20nothing.txt"),
    )
    assert literal.stdout == decoded.stdout == b"space"
    assert missing.code == 3
    assert "with%20nothing.txt" in missing.stderr


def test_a_version_goes_into_a_car(project: Project) -> None:
    (outcome,) = project.run(("car", "export", "models:/digits@champion", "-o", "version.car", "--json"))
    assert outcome.records[0]["cid"] == project.cid
    other = CommandLine(project.cli.store.parent / "other-store")
    other("car", "import", project.cli.store.parent / "version.car")
    other("verify", project.cid, "--against", project.model)


def test_a_file_of_a_version_a_run_and_a_mutable_path_is_read(project: Project) -> None:
    weights = project.model / "data" / "weights.bin"
    outcomes = project.run(
        ("cat", "models:/digits/1/MLmodel"),
        ("cat", "models:/digits@champion/MLmodel"),
        ("cat", f"runs:/{project.run_id}/notes/hello.txt"),
        ("cat", f"{project.artifact_uri}/notes/hello.txt"),
        ("get", f"runs:/{project.run_id}/model/data", "-o", "out"),
        ("get", f"{project.artifact_uri}", "-o", "all"),
    )
    assert [outcome.stdout for outcome in outcomes[:4]] == [b"flavors: {}\n", b"flavors: {}\n", b"hello", b"hello"]
    for place in ("out", "all/model/data"):
        assert (project.cli.store.parent / place / "weights.bin").read_bytes() == weights.read_bytes()


def test_a_run_is_a_directory_with_the_cids_that_its_parts_would_have_as_content(project: Project) -> None:
    outcomes = project.run(
        ("ls", "--json", f"runs:/{project.run_id}"),
        ("verify", "--json", f"runs:/{project.run_id}"),
        ("add", "-q", "-n", "--hidden", str(project.model)),
        ("gc", "--dry-run", "--json"),
    )
    listed = {record["name"]: record["cid"] for record in outcomes[0].records}
    assert set(listed) == {"model", "notes"}
    assert listed["model"] == project.cid == outcomes[2].lines[0]
    assert outcomes[1].records[0]["ok"]
    assert outcomes[3].records[-1]["deletable_blocks"] == 0, "looking at a run must write nothing into the store"


def test_versions_and_runs_can_be_pinned(project: Project) -> None:
    version, run, listed, pins = project.run(
        ("pin", "add", "models:/digits@champion"),
        ("pin", "add", f"runs:/{project.run_id}", "--json"),
        ("ls", "--json", project.artifact_uri.removesuffix("/artifacts")),
        ("pin", "ls", "--owner", "user", "--json"),
    )
    assert version.lines == [f"pinned  models:/digits@champion  {project.cid}"]
    assert [record["cid"] for record in listed.records] == [run.records[0]["cid"]]
    assert {record["cid"]: record["name"] for record in pins.records} == {
        project.cid: "models:/digits@champion",
        run.records[0]["cid"]: f"runs:/{project.run_id}",
    }
    assert all(record["size_bytes"] > 2_000_000 for record in pins.records)
    other, *removed, left = project.run(
        ("pin", "rm", f"{project.artifact_uri}/notes"),
        ("pin", "rm", "models:/digits/1"),
        ("pin", "rm", f"runs:/{project.run_id}"),
        ("pin", "ls", "--owner", "user"),
    )
    assert other.code == 3
    assert "can change, and no pin of 'user' was added under this name; name the CID" in other.stderr
    assert [outcome.stdout.decode().split()[-1] for outcome in removed] == [project.cid, run.records[0]["cid"]]
    assert left.lines == []
    (refused,) = project.run(("pin", "rm", "models:/digits/1"))
    assert "but by 'model-version:" in refused.stderr


def test_what_mlflow_does_not_know_is_3(project: Project) -> None:
    outcomes = project.run(
        ("ls", "models:/digits/2"),
        ("ls", "models:/digits@nobody"),
        ("ls", "models:/unknown/1"),
        ("ls", "models:/nothing/latest"),
        ("ls", "models:/m-0123456789"),
        ("ls", "models:/digits"),
        ("ls", "runs:/0123456789abcdef0123456789abcdef"),
        ("ls", f"runs:/{project.run_id}/nope"),
        ("ls", f"{project.artifact_uri}/nope"),
        ("cat", "models:/digits/1/nope"),
        ("ls", f"mfs://mlflow/elsewhere/@{project.cid}"),
    )
    assert [outcome.code for outcome in outcomes] == [3] * len(outcomes), outcomes
    assert all(outcome.stderr.startswith("mlflow-ipfs: ") and outcome.stderr.count("\n") == 1 for outcome in outcomes)
    advised = [outcome.stderr for outcome in outcomes if "name a version or an alias" in outcome.stderr]
    assert len(advised) == 1
    assert "name a version or an alias: models:/digits/1, models:/digits@…" in advised[0]


def test_what_mlflow_cannot_read_is_2(project: Project) -> None:
    outcomes = project.run(("ls", "models:/"), ("ls", "runs:/"), ("ls", "models://"))
    assert [outcome.code for outcome in outcomes] == [2] * len(outcomes), outcomes


def test_a_version_in_another_store_is_3_and_names_the_missing_cid(project: Project, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    (project.cli.store.parent / "something").write_text("something")
    added, missing = project.run(
        ("--store", other, "add", "something"), ("--store", other, "verify", "models:/digits/1")
    )
    assert (added.code, missing.code) == (0, 3)
    assert project.cid in missing.stderr
    assert "--store" in missing.stderr


def test_the_tracking_uri_may_be_given(project: Project) -> None:
    with_option = CommandLine(project.cli.store).in_a_process(
        "verify", "models:/digits@champion", "--json", "--tracking-uri", project.tracking_uri
    )
    assert with_option.records[0]["cid"] == project.cid
    assert with_option.stderr == ""


def test_what_is_not_in_ipfs_is_3(project: Project) -> None:
    (outcome,) = project.run(("verify", f"runs:/{project.plain_run_id}"))
    assert outcome.code == 3
    assert "not in IPFS" in outcome.stderr


def test_a_server_that_is_away_is_1(cli: CommandLine) -> None:
    cli("add", "-", stdin=b"so that there is a store")
    nobody = f"http://127.0.0.1:{find_free_port()}"
    outcome = cli.in_a_process("verify", "models:/digits/1", "--tracking-uri", nobody, code=1)
    assert outcome.stderr.startswith("mlflow-ipfs: models:/digits/1: ")
    assert outcome.stderr.count("\n") == 1


@pytest.mark.server
def test_versions_of_a_server_are_verified_on_its_machine(tmp_path: Path, mlflow_server: StartServer) -> None:
    cli = CommandLine(tmp_path / "store")
    database = f"sqlite:///{tmp_path}/server.db"
    server = mlflow_server(
        "--backend-store-uri", database, "--registry-store-uri", f"ipfs+{database}", "--artifacts-destination", "mfs://mlflow",
        env={"MLFLOW_IPFS_STORE": f"local:{cli.store}"},
    )  # fmt: skip
    with make_project(cli, server.url) as project:
        assert project.location.startswith("mlflow-artifacts:/")
        verified, mutable = project.run(
            ("verify", "--json", "models:/digits@champion", "--against", str(project.model)),
            ("ls", f"runs:/{project.run_id}"),
        )
    assert verified.records[0]["cid"] == project.cid
    assert mutable.code == 3
    assert "stored by an MLflow server" in mutable.stderr
    in_store = f"mfs://mlflow/{project.artifact_uri.removeprefix('mlflow-artifacts:/')}"
    assert f"In this store it is {in_store}: name that instead" in mutable.stderr
    assert "register a model version" in mutable.stderr


@pytest.mark.server
def test_a_version_that_is_not_frozen_gets_advice_that_fits(tmp_path: Path, mlflow_server: StartServer) -> None:
    cli = CommandLine(tmp_path / "store")
    server = mlflow_server(
        "--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", "mfs://mlflow",
        env={"MLFLOW_IPFS_STORE": f"local:{cli.store}"},
    )  # fmt: skip
    with make_project(cli, server.url) as project:
        assert project.location == f"runs:/{project.run_id}/model"
        (version,) = project.run(("verify", "models:/digits/1"))
        in_store = f"mfs://mlflow/{project.artifact_uri.removeprefix('mlflow-artifacts:/')}/model"
        (verified,) = project.run(("verify", in_store))
    assert version.code == 3
    assert f"In this store it is {in_store}" in version.stderr
    assert "Register a model version" not in version.stderr
    assert "--registry-store-uri ipfs+… freezes every version" in version.stderr
    assert verified.code == 0


def snapshot_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in directory.rglob("*")}


@pytest.mark.parametrize("scheme", ["ipfs+sqlite", "sqlite"])
@pytest.mark.parametrize("command", ["verify", "cid"])
def test_reading_creates_no_database(cli: CommandLine, tmp_path: Path, scheme: str, command: str) -> None:
    cli("add", "-", stdin=b"so that there is a store")
    (tmp_path / "empty.db").touch()
    before = snapshot_of(tmp_path)
    missing = f"{scheme}:///{tmp_path}/nowhere/x.db"
    stderr = cli(command, "models:/m/1", "--tracking-uri", missing, code=3).stderr
    assert f"MLflow's database {tmp_path}/nowhere/x.db does not exist (from --tracking-uri)" in stderr
    stderr = cli(command, "models:/m/1", "--tracking-uri", f"{scheme}:///{tmp_path}/empty.db", code=3).stderr
    assert "is not a database of MLflow" in stderr
    stderr = cli(command, "models:/m/1", code=3).stderr
    assert f"{tmp_path}/mlflow.db does not exist (MLflow's default, because MLFLOW_TRACKING_URI is not set)" in stderr
    stderr = cli(command, "runs:/0123", "--tracking-uri", f"{tmp_path}/mlruns", code=3).stderr
    assert f"MLflow's directory {tmp_path}/mlruns does not exist" in stderr
    after = snapshot_of(tmp_path)
    assert {path for path in after if "/store/" not in path} == {path for path in before if "/store/" not in path}


def test_reading_changes_no_database(project: Project) -> None:
    database = project.cli.store.parent / "mlflow.db"
    before = database.read_bytes()
    project.run(("verify", "models:/digits/1"), ("ls", f"runs:/{project.run_id}"))
    assert database.read_bytes() == before


def test_an_older_database_is_not_migrated(project: Project, tmp_path: Path) -> None:
    shutil.copy(project.cli.store.parent / "mlflow.db", tmp_path / "old.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as connection:
        connection.execute("DROP TABLE webhook_events")
        connection.commit()
    before = (tmp_path / "old.db").read_bytes()
    (outcome,) = project.run(("verify", "models:/digits/1", "--tracking-uri", f"sqlite:///{tmp_path}/old.db"))
    assert outcome.code == 2
    assert "was made by an older MLflow; back it up and run `mlflow db upgrade` on it" in outcome.stderr
    assert (tmp_path / "old.db").read_bytes() == before


def test_an_error_says_which_mlflow_was_asked(project: Project) -> None:
    (outcome,) = project.run(("verify", "models:/unknown/1"))
    assert outcome.stderr.endswith(f"(MLflow at {project.tracking_uri})\n")


def test_logged_models_are_named_with_the_command_to_use(project: Project) -> None:
    model = f"models:/{project.logged_model_id}"
    missing, named = project.run(
        ("verify", f"runs:/{project.modern_run_id}"), ("verify", f"runs:/{project.modern_run_id}/network")
    )
    assert missing.code == 3
    assert f"The run's logged models are stored separately: name {model}\n" in missing.stderr
    assert named.code == 0
    run = f"runs:/{project.modern_run_id}"
    project.worker.ask(f"log {project.modern_run_id}")
    listed, verified, pinned, as_json = project.run(
        ("ls", run), ("verify", run), ("pin", "add", run), ("verify", "--json", run)
    )
    for outcome, command in ((listed, "ls"), (verified, "verify"), (pinned, "pin add")):
        assert outcome.code == 0, outcome
        assert f"MLflow keeps its 1 logged model elsewhere: {model} (network)" in outcome.stderr
        assert f"`mlflow-ipfs {command} {model}`" in outcome.stderr
    assert as_json.records[0]["other_models"] == [project.logged_model_id]
    assert as_json.stderr == ""
