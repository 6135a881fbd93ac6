from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.content.mfs import MfsPath

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

UNKNOWN = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


def test_the_cid_of_a_path_is_printed(cli: CommandLine, root: str) -> None:
    sub = next(entry["cid"] for entry in cli("ls", "--json", root).records if entry["name"] == "sub")
    assert cli("cid", root, f"ipfs://{root}/sub").lines == [root, sub]
    fields = {"mutable": False, "stored": True, "other_models": []}
    assert cli("cid", "--json", root).records == [{"content": root, "cid": root} | fields]


def test_the_cid_of_what_can_change_is_that_of_its_present_state(cli: CommandLine, directory: Path, root: str) -> None:
    run = "mfs://mlflow/0/run"
    with open_store(Settings(store=cli.store)) as store:
        store.files.put_file(MfsPath.parse(f"{run}/a"), directory / "sub" / "small.txt")
    outcome = cli("cid", run)
    assert (
        f"{run} can still change; `mlflow-ipfs pin add {run}` keeps its present state under this CID" in outcome.stderr
    )
    assert cli("cid", "--json", run).records[0]["stored"] is False
    assert cli("pin", "add", run).cid == outcome.cid
    assert cli("cid", run).stderr == ""
    del root


def test_what_is_unknown_is_3(cli: CommandLine, root: str) -> None:
    assert "add the content (`mlflow-ipfs add` or `car import`)" in cli("cid", UNKNOWN, code=3).stderr
    assert "has no entry 'nope'" in cli("cid", f"{root}/nope", code=3).stderr
