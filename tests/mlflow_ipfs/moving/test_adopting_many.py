"""Adoption of 100,000 artifacts: memory stays limited, and the next call is fast."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
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
# A small process between: the highest memory of a process includes that of the process which started it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, flush=True)
sys.exit(code)
"""


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
    measured = [sys.executable, "-c", MEASURE, *command]
    done = subprocess.run(measured, env=cli.environment, capture_output=True, text=True, timeout=1000, check=False)
    assert done.returncode == 0, done.stderr
    assert "removed     100,000 old files" in done.stdout
    assert int(done.stdout.splitlines()[-1]) * 1024 < MAX_MEMORY_BYTES
    with open_store() as store:
        assert len(store.files.walk(MfsPath("mlflow"))) == RUNS * FILES
    assert not [uri for (uri,) in site.query("SELECT artifact_uri FROM runs") if not uri.startswith("mfs://")]
    assert list((site.directory / "mlruns").iterdir()) == []
