"""Benchmark: uploading a large artifact through `mlflow server`, compared with stock MLflow and local artifacts.

It uses two real servers and the same HTTP client. Our server has made an upload durable when it answers, so the upload
to the peer is synced within the measured time. Our server must not make a temporary file meanwhile. Each upload has a path of
its own, as each model has, so that both servers keep all of them. First every upload is new content, and then every one is
content that our server has already.

Usage: python benchmarks/server_upload.py [MEBIBYTES]
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import count
from pathlib import Path

from harness import compare, measure_seconds
from publish_one_file import make_file
from served import run_servers, sync_artifact


def change(source: Path, number: int) -> None:
    """Change every block of the file."""
    with source.open("r+b") as file:
        for start in range(0, source.stat().st_size, 1 << 17):
            file.seek(start)
            file.write(b"%08d" % number)


def main(mebibytes: int) -> None:
    numbers = count()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIRECTORY")) as temporary:
        directory = Path(temporary)
        source = directory / "source"
        make_file(source, mebibytes)
        with run_servers(directory) as (ours, stock):

            def upload_new() -> float:
                change(source, next(numbers))
                return upload_again()

            def upload_again() -> float:
                path = f"{next(numbers)}/model.bin"
                return measure_seconds(lambda: ours.upload(path, source))

            def upload_stock() -> float:
                path = f"{next(numbers)}/model.bin"

                def upload() -> None:
                    stock.upload(path, source)
                    sync_artifact(directory, path)

                return measure_seconds(upload)

            with ours.without_temporary_files():
                upload_new()
            for name, upload_ours in (("server_upload", upload_new), ("server_upload_again", upload_again)):
                compare(
                    f"{name}_{mebibytes}_MiB",
                    "wall seconds",
                    upload_ours,
                    upload_stock,
                    "mlflow server with local artifacts, and fsync",
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 512)
