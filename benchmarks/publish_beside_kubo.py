"""Benchmark: publishing, compared with `ipfs add` through a Kubo daemon with the same profile.

The content is one file of 1 GiB, and 10,000 files of 4 KiB in 100 directories. The daemon is warm and offline. Its
repository is emptied between the turns, outside of the measured time. Both must give the same CID.

Usage: python benchmarks/publish_beside_kubo.py [MEBIBYTES]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("tests", "tools")]

from harness import compare, measure_seconds, publish_into_new_store
from mlflow_ipfs import Settings, open_store
from provision_kubo import provision
from publish_many_files import make_tree
from publish_one_file import make_file
from support.kubo import KuboDaemon, init_repository, run_daemon

PROFILE = "unixfs-v1-2025"
COLLECT_SECONDS = 300


def add_to_kubo(daemon: KuboDaemon, source: Path) -> float:
    """Return the wall time of adding, in seconds. Remove the added content afterwards."""
    seconds = measure_seconds(lambda: daemon("add", "--quieter", "--recursive", "--pin=false", source))
    subprocess.run(
        [daemon.binary, "repo", "gc", "--quiet"],
        env=daemon.environment, stdout=subprocess.DEVNULL, timeout=COLLECT_SECONDS, check=True,
    )  # fmt: skip
    return seconds


def check_same_cid(daemon: KuboDaemon, source: Path, scratch: Path) -> None:
    with open_store(Settings(store=scratch / "check")) as store:
        ours = str(store.add(source).cid)
    kubos = daemon("add", "--quieter", "--recursive", "--only-hash", source).strip()
    if ours != kubos:
        sys.exit(f"{source}: ours is {ours}, Kubo's is {kubos}")


def main(mebibytes: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as name:
        directory = Path(name)
        file, tree = directory / "file", directory / "tree"
        make_file(file, mebibytes)
        make_tree(tree)
        with run_daemon(init_repository(provision(), directory / "kubo", PROFILE)) as daemon:
            for question, source in (
                (f"publish_{mebibytes}_MiB", file),
                ("publish_10000_files_of_4_KiB", tree),
            ):
                check_same_cid(daemon, source, directory)
                compare(
                    question,
                    "wall seconds",
                    lambda source=source: publish_into_new_store(source, directory),  # type: ignore[misc]
                    lambda source=source: add_to_kubo(daemon, source),  # type: ignore[misc]
                    f"ipfs add through a daemon, {PROFILE}",
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
