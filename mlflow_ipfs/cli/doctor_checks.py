"""Checks of ``doctor`` on the installation and the settings, and the list of all its checks.

Each check yields findings. An error in a check becomes a finding, and the checks that do not depend on it still run.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import sqlite3
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Final

import click

import mlflow_ipfs
from mlflow_ipfs.cli.application import plugin_commands
from mlflow_ipfs.cli.doctor_content_checks import check_database_content
from mlflow_ipfs.cli.doctor_database_checks import check_database
from mlflow_ipfs.cli.doctor_findings import Finding, State
from mlflow_ipfs.cli.doctor_store_checks import check_store
from mlflow_ipfs.cli.terminal import format_count
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.profiles import Profile
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from mlflow_ipfs.cli.options import CliContext
    from mlflow_ipfs.config import Settings

_DISTRIBUTION: Final = "mlflow-ipfs"
_PACKAGES: Final = ("keras_ipfs", "lightning_ipfs", "reports")


def run_checks(
    cli_context: CliContext, own_commands: Collection[str], database_uri: str | None = None
) -> Iterator[Finding]:
    """Run all checks, and yield each finding at once.

    Args:
        cli_context: the settings and the store.
        own_commands: names of the built-in commands, which other packages cannot replace.
        database_uri: MLflow's database, whose model versions and artifacts are checked too; None: no database.
    """
    yield _report_version()
    yield _check_sqlite()
    try:
        settings = cli_context.settings
    except MlflowIpfsError as error:
        yield Finding("settings", str(error), State.PROBLEM)
    else:
        yield from check_store(cli_context, settings)
        yield from _list_settings(settings, cli_context.setting_sources)
    yield from _check_mlflow()
    if database_uri:
        yield from check_database(cli_context, database_uri)
        yield from check_database_content(cli_context, database_uri)
    yield from _check_commands(own_commands)
    yield from _check_package_names()


def _report_version() -> Finding:
    version, python = mlflow_ipfs.__version__, platform.python_version()
    text = f"{version}, Python {python} on {platform.system()} {platform.machine()}"
    return Finding("mlflow-ipfs", text, facts={"version": version, "python": python})


def _check_sqlite() -> Finding:
    version = sqlite3.sqlite_version
    facts = {"version": version}
    if sqlite3.sqlite_version_info >= inspection.SAFE_SQLITE:
        return Finding("SQLite", version, facts=facts)
    safe = ".".join(map(str, inspection.SAFE_SQLITE))
    text = (
        f"{version}; versions before {safe} can corrupt the log if one connection writes while another makes a "
        "checkpoint, which the lock of the store prevents"
    )
    return Finding("SQLite", text, State.NOTE, facts)


def _list_settings(settings: Settings, sources: dict[str, str]) -> Iterator[Finding]:
    for item in fields(settings):
        value = _text_of(getattr(settings, item.name))
        source = sources.get(item.name, "default")
        facts = {"name": item.name, "value": value, "source": source}
        yield Finding("settings", f"{item.name:<16} {value}  ({source})", facts=facts)


def _text_of(value: object) -> str:
    if isinstance(value, Profile):
        return value.name
    if isinstance(value, FixedSizeChunker):
        return f"size-{value.chunk_bytes}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "from the profile" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _check_mlflow() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("MLflow", "is not installed in this environment", State.PROBLEM)
        return
    # MLflow is imported first, because it imports the entry points of this package itself.
    problem = _load_problem(partial(importlib.import_module, "mlflow"))
    if problem is not None:
        yield Finding("MLflow", f"{version} cannot be imported: {problem}", State.PROBLEM, {"version": version})
        return
    entries = [entry for entry in _own_entry_points() if entry.group.startswith(("mlflow.", "sqlalchemy."))]
    broken = [(entry, reason) for entry in entries if (reason := _load_problem(entry.load))]
    facts = {"version": version, "entry_points": len(entries)}
    if not broken:
        yield Finding("MLflow", f"{version}; all {format_count(len(entries), 'entry point')} load", facts=facts)
    for entry, reason in broken:
        text = f"{version}; {entry.group} {entry.name!r} cannot be loaded: {reason}"
        yield Finding("MLflow", text, State.PROBLEM, facts)


def _own_entry_points() -> list[importlib.metadata.EntryPoint]:
    try:
        return list(importlib.metadata.distribution(_DISTRIBUTION).entry_points)
    except importlib.metadata.PackageNotFoundError:
        return []


def _load_problem(load: Callable[[], object]) -> str | None:
    try:
        load()
    except Exception as error:  # noqa: BLE001 - any error of the import is the finding
        return f"{type(error).__name__}: {error}"
    return None


def _check_commands(own: Collection[str]) -> Iterator[Finding]:
    for entry in plugin_commands():
        package = entry.dist.name if entry.dist else "another package"
        facts = {"name": entry.name, "package": package}
        reason = "its name is the name of a built-in command" if entry.name in own else _command_problem(entry)
        if reason is None:
            yield Finding("commands", f"{entry.name} from {package}", facts=facts)
        else:
            yield Finding("commands", f"{entry.name} from {package} cannot be loaded: {reason}", State.PROBLEM, facts)


def _check_package_names() -> Iterator[Finding]:
    """Check that no other distribution has a package with a name of this one, of which Python would import only one."""
    owners = importlib.metadata.packages_distributions()
    for name in _PACKAGES:
        others = sorted(set(owners.get(name, [])) - {_DISTRIBUTION})
        if others:
            text = f"{', '.join(others)} has a package {name!r} too; uninstall it, or use an environment of its own"
            yield Finding("packages", text, State.PROBLEM, {"name": name, "packages": others})


def _command_problem(entry: importlib.metadata.EntryPoint) -> str | None:
    reason = _load_problem(entry.load)
    if reason is None and not isinstance(entry.load(), click.Command):
        reason = f"{entry.value} is not a click command"
    return reason
