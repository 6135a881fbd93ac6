"""An S3 server on this machine, for tests of buckets: moto's."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.mlflow_server import clean_environment
from support.not_run import not_run
from support.processes import find_free_port, start_process, stop_process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "artifacts"


@contextlib.contextmanager
def run_s3(directory: Path) -> Iterator[dict[str, str]]:
    """Run a server with one bucket. Yield the environment variables with which MLflow uses it."""
    if any(importlib.util.find_spec(name) is None for name in ("moto", "flask", "boto3")):
        not_run("an S3 server is missing: moto[server] and boto3, which are in the dependency group test")
    port = find_free_port()
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    command: list[str | Path] = [Path(sys.executable), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = start_process(command, env=clean_environment(), cwd=directory, log=directory / "s3.log")
    try:
        wait_until(lambda: _listens(port), timeout_seconds=90, what="the S3 server listens")
        open_s3(environment).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        stop_process(process)


def open_s3(environment: dict[str, str]) -> Any:
    """Return a client of the server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.connect(("127.0.0.1", port))
        return True
    return False
