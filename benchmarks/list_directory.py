"""Benchmark: listing a directory of 1,000 files in a run of 100,000. The limit is 0.2 s.

The store is compared with os.scandir and a stat of each file. The artifact repository is compared with MLflow's
artifact repository for local directories.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from harness import compare, measure_seconds
from large_run import FILES_EACH, RUN, make_large_directory, put_large_run
from mlflow_ipfs import open_store
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.plugins.artifact_repository import MfsArtifactRepository

ROOT = "bench"


def check(found: int) -> None:
    """Raise if a listing is incomplete, because its time would be meaningless."""
    if found != FILES_EACH:
        msg = f"{found} files were listed instead of {FILES_EACH}"
        raise RuntimeError(msg)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        os.environ["MLFLOW_IPFS_STORE"] = f"local:{directory / 'store'}"

        make_large_directory(directory / "disk" / "050")
        with open_store() as store:
            put_large_run(store, ROOT)
            path = MfsPath(ROOT, f"{RUN}/050")
            compare(
                "list_1000_of_100000_files_in_the_store",
                "wall seconds",
                lambda: measure_seconds(lambda: check(len(store.files.list(path)))),
                lambda: measure_seconds(lambda: check(len([e.stat() for e in os.scandir(directory / "disk" / "050")]))),
                "os.scandir and stat",
            )
        ours = MfsArtifactRepository(f"mfs://{ROOT}/{RUN}")
        peer = LocalArtifactRepository(str(directory / "disk"))
        compare(
            "list_1000_of_100000_files_in_mlflow",
            "wall seconds",
            lambda: measure_seconds(lambda: check(len(ours.list_artifacts("050")))),
            lambda: measure_seconds(lambda: check(len(peer.list_artifacts("050")))),
            "mlflow.LocalArtifactRepository",
        )


if __name__ == "__main__":
    main()
