"""A database with model versions, and MLflow on it or on a copy of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mlflow import MlflowClient

from mlflow_ipfs.content.cid import CID

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.store import ContentStore

VERSIONS = 5

_openings = itertools.count(1)


def open_client(database: Path) -> MlflowClient:
    """MLflow on a database file, opened anew as by another process: MLflow keeps one store for each spelling."""
    uri = f"ipfs+sqlite:///{database.parent}{'/.' * next(_openings)}/{database.name}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def make_versions(client: MlflowClient) -> list[CID]:
    client.create_registered_model("m")
    cids = []
    for number in range(VERSIONS):
        run = client.create_run("0").info
        client.log_text(run.run_id, f"flavors: {{}} # {number}\n", "model/MLmodel")
        version = client.create_model_version("m", f"{run.artifact_uri}/model", run.run_id)
        cids.append(CID.parse(version.tags["ipfs.cid"]))
    return cids


def delete_versions(client: MlflowClient) -> None:
    for number in range(1, VERSIONS + 1):
        client.delete_model_version("m", str(number))


def is_readable(store: ContentStore, cids: list[CID]) -> bool:
    blocks = store.storage.blocks
    return all(blocks.has(cid) and blocks.has(store.resolve(cid, "MLmodel")) for cid in cids)
