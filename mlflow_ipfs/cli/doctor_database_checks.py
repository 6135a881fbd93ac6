"""Checks of ``doctor`` on MLflow's database: versions that are not frozen, and artifacts outside the store.

SQLAlchemy and MLflow take longer to import than the other checks take to run, so they are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mlflow_ipfs.cli.doctor_findings import Finding, State
from mlflow_ipfs.cli.options import has_store
from mlflow_ipfs.cli.terminal import format_count
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from mlflow_ipfs.cli.options import CliContext


def check_database(cli_context: CliContext, database_uri: str) -> Iterator[Finding]:
    """Yield the findings on MLflow's database."""
    try:
        from mlflow_ipfs.binding.databases.named_database import find_database

        database = find_database(database_uri, {})
    except (ImportError, MlflowIpfsError) as error:
        yield Finding("versions", str(error), State.PROBLEM)
        return
    try:
        yield from _check_model_versions(database)
    except (ImportError, MlflowIpfsError) as error:
        yield Finding("versions", str(error), State.PROBLEM)
        return
    try:
        yield _check_outside_artifacts(cli_context, database)
    except MlflowIpfsError as error:
        yield Finding("artifacts", str(error), State.PROBLEM)


def _check_model_versions(database: URL) -> Iterator[Finding]:
    """Yield the number of frozen versions, and each version that is not frozen."""
    from mlflow_ipfs.binding.registry.unfrozen_versions import count_versions

    found = count_versions(database)
    text = f"{format_count(found.frozen, 'model version')} frozen, {len(found.unfrozen):,} not frozen"
    if found.prompts:
        text += f"; {format_count(found.prompts, 'prompt version')}, without files"
    facts = {"frozen": found.frozen, "unfrozen": len(found.unfrozen), "prompts": found.prompts}
    yield Finding("versions", text, facts=facts)
    for version in found.unfrozen:
        text = f"{version.name}/{version.version} is not frozen; its files at {version.location} can still change"
        details = {"name": version.name, "version": version.version, "location": version.location}
        yield Finding("versions", text, State.NOTE, details)


def _check_outside_artifacts(cli_context: CliContext, database: URL) -> Finding:
    """Return the number of artifacts outside the store, and the command that takes them in."""
    from mlflow_ipfs.binding.artifacts.outside_artifacts import SearchLimit, iterate_outside_artifacts
    from mlflow_ipfs.binding.artifacts.outside_notice import adopt_command, describe_outside
    from mlflow_ipfs.content.storage.memory import MemoryStorage
    from mlflow_ipfs.content.store import ContentStore

    limit = SearchLimit()
    is_store = has_store(cli_context.settings)
    with cli_context.open_store() if is_store else ContentStore(MemoryStorage()) as store:
        found = list(iterate_outside_artifacts(database, store, environ=os.environ, limit=limit))
    text = describe_outside(found, database, limit)
    if text is None:
        return Finding("artifacts", "all that the database names are in the store", facts={"outside": 0})
    outside = sum(artifact.row.kind != "experiment" for artifact in found)
    return Finding("artifacts", text, State.NOTE, {"outside": outside, "command": adopt_command(database)})
