"""Adoption of 100,000 artifacts: memory stays limited, and the next call is fast."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from support.command_line import CommandLine
    from support.stock_sites import StockSite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

RUNS, FILES = 2000, 50
MAX_MEMORY_BYTES = 600 << 20


def test_a_hundred_thousand_artifacts(cli: CommandLine, site: StockSite) -> None:
    experiment = site.client.create_experiment("big")
    rows = []
    for number in range(RUNS):
        directory = site.directory / "mlruns" / experiment / f"{number:032x}" / "artifacts"
        directory.mkdir(parents=True)
        for index in range(FILES):
            (directory / f"{index}.txt").write_text(f"{number} {index}")
        rows.append((directory.parent.name, experiment, str(directory)))
    with sqlite3.connect(site.database) as connection:
        connection.executemany(
            "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage, artifact_uri)"
            " VALUES (?, ?, 'FINISHED', 'active', ?)",
            rows,
        )
    command = [*cli.command, "adopt", "--backend-store-uri", site.uri, "--remove-source"]
    with (site.directory / "output").open("w+") as output:
        process = subprocess.Popen(command, env=cli.environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # the memory of this process alone
        output.seek(0)
        text = output.read()
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "removed     100,000 old files" in text
    assert usage.ru_maxrss * 1024 < MAX_MEMORY_BYTES
    with open_store() as store:
        assert len(store.files.walk(MfsPath("mlflow"))) == RUNS * FILES
    assert not [uri for (uri,) in site.query("SELECT artifact_uri FROM runs") if not uri.startswith("mfs://")]
    assert list((site.directory / "mlruns").iterdir()) == []
