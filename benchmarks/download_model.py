"""Benchmark: `mlflow.artifacts.download_artifacts("ipfs://…")` of a large model, compared with copying its files.

It runs as an ordinary user, in a process that has not used the store before, so the time includes opening the store.
The limit is 0.05 s without a destination, whatever the size, and 1.2 times the copy with a destination. Neither side
syncs. The peer copies by reading and writing bytes.

Usage: python benchmarks/download_model.py [MEBIBYTES]
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import mlflow

from harness import compare, measure_seconds
from mlflow_ipfs import Settings, open_store
from mlflow_ipfs.binding import locations
from mlflow_ipfs.binding.artifacts import artifact_trees  # imported now: the ordinary user may be unable to read it
from mlflow_ipfs.plugins import artifact_repository
from publish_one_file import make_file
from support.unprivileged import OrdinaryUser, make_ordinary_user

LOADED = (artifact_repository, artifact_trees, locations)
SMALL_FILES = {"MLmodel": "flavors: {}\n", "requirements.txt": "mlflow\n", "conda.yaml": "name: mlflow-env\n"}
PIECE_BYTES = 1 << 20


def make_model(directory: Path, mebibytes: int) -> str:
    """Write a model to disk and add it to a store. Return its CID."""
    model = directory / "model"
    model.mkdir()
    make_file(model / "model.bin", mebibytes)
    for name, text in SMALL_FILES.items():
        (model / name).write_text(text)
    with open_store(Settings(store=directory / "store")) as store:
        return str(store.add(model).cid)


def download(directory: Path, cid: str, destination: Path | None) -> float:
    """Return the wall time of one download in seconds, after a check that all files were downloaded."""
    os.environ |= {"MLFLOW_IPFS_STORE": f"local:{directory / 'store'}", "HOME": str(directory)}
    os.chdir(directory)
    if destination is not None:
        destination.mkdir()
    target = None if destination is None else str(destination)
    found: list[str] = []
    seconds = measure_seconds(
        lambda: found.append(mlflow.artifacts.download_artifacts(f"ipfs://{cid}", dst_path=target))
    )
    check_same(directory / "model", Path(found[0]))
    return seconds


def check_same(model: Path, downloaded: Path) -> None:
    sizes = [{path.name: path.stat().st_size for path in each.iterdir()} for each in (model, downloaded)]
    if sizes[0] != sizes[1]:
        sys.exit(f"{downloaded} contains {sizes[1]} instead of {sizes[0]}")


def copy(model: Path, destination: Path) -> float:
    """Return the wall time of copying the files of the model, in seconds."""

    def copy_files() -> None:
        destination.mkdir()
        for path in model.iterdir():
            with path.open("rb") as reader, (destination / path.name).open("wb") as writer:
                while piece := reader.read(PIECE_BYTES):
                    writer.write(piece)

    return measure_seconds(copy_files)


def run_and_clean(user: OrdinaryUser, name: str, action: partial[float]) -> float:
    """Run an action as the user, then remove the written files outside of the measured time."""
    destination = user.directory / name
    seconds = user.run(action, destination)
    for path in destination.iterdir() if destination.exists() else ():
        path.unlink()
    if destination.exists():
        destination.rmdir()
    return seconds


def main(mebibytes: int) -> None:
    tempfile.tempdir = os.environ.get("BENCH_DIRECTORY")
    with contextlib.contextmanager(make_ordinary_user)() as user:
        cid = user.run(make_model, user.directory, mebibytes)
        peer = partial(run_and_clean, user, "copy", partial(copy, user.directory / "model"))
        question = f"download_model_{mebibytes}_MiB"
        compare(
            f"{question}_without_destination",
            "wall seconds",
            lambda: user.run(download, user.directory, cid, None),
            peer,
            "copying the files",
        )
        compare(
            f"{question}_to_a_destination",
            "wall seconds",
            partial(run_and_clean, user, "out", partial(download, user.directory, cid)),
            peer,
            "copying the files",
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
