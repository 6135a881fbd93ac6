"""What ``doctor`` looks at. Each look is a function that gives findings and never stops the others."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sqlite3
import stat
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

import mlflow_ipfs
from mlflow_ipfs.cli.application import plugin_commands
from mlflow_ipfs.cli.options import has_store
from mlflow_ipfs.cli.terminal import format_count, format_size
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.profiles import Profile
from mlflow_ipfs.content.storage.local.index.access_check import check_access
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.content.system.access import group_name, remedy, translate_access_errors, user_name
from mlflow_ipfs.content.system.disk import free_bytes
from mlflow_ipfs.content.system.mounts import is_network_file_system
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from mlflow_ipfs.cli.options import CliContext
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.storage.local.index.access_check import Unusable

DISTRIBUTION: Final = "mlflow-ipfs"
NAMED: Final = 5  # of the files that cannot be used, so many are named to people
LISTED: Final = 1000  # and so many to programs
LITTLE_ROOM_BYTES: Final = 1 << 30  # below this much free space a note is made of it
_PROBE: Final = CID(1, 0x55, b"\x00\x00")  # the empty identity CID: pinning it keeps nothing
_PROBE_OWNER: Final = "doctor"


class State(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    NOTE = "note"  # worth knowing, nothing to do
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: what it is about.
        text: what was found, for people.
        state: whether that is well.
        facts: the same for programs.
    """

    topic: str
    text: str
    state: State = State.OK
    facts: dict[str, Any] = field(default_factory=dict)


def examine(
    cli_context: CliContext, own_commands: Collection[str], database_uri: str | None = None
) -> Iterator[Finding]:
    """Look at everything, and give what was found as it is found.

    Args:
        cli_context: the settings and the store.
        own_commands: names of the commands that other packages cannot take.
        database_uri: MLflow's database, whose model versions are checked as well.
    """
    yield _versions()
    yield _sqlite()
    try:
        settings = cli_context.settings
    except MlflowIpfsError as error:
        yield Finding("settings", str(error), State.PROBLEM)
    else:
        yield from _store(cli_context, settings)
        yield from _settings(settings, cli_context.places)
    yield from _mlflow()
    if database_uri:
        yield from _model_versions(database_uri)
    yield from _commands(own_commands)


def _versions() -> Finding:
    version, python = mlflow_ipfs.__version__, platform.python_version()
    text = f"{version}, Python {python} on {platform.system()} {platform.machine()}"
    return Finding("mlflow-ipfs", text, facts={"version": version, "python": python})


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    facts = {"version": version}
    if sqlite3.sqlite_version_info >= inspection.SAFE_SQLITE:
        return Finding("SQLite", version, facts=facts)
    safe = ".".join(map(str, inspection.SAFE_SQLITE))
    text = (
        f"{version}; before {safe} its log can break when two connections write and checkpoint at once, which the "
        "store's own lock prevents"
    )
    return Finding("SQLite", text, State.NOTE, facts)


def _store(cli_context: CliContext, settings: Settings) -> Iterator[Finding]:
    directory = settings.store
    yield from _disk(directory)
    try:
        is_there = has_store(settings)
    except MlflowIpfsError as error:
        yield Finding("store", str(error), State.PROBLEM, {"path": str(directory)})
        return
    if not is_there:
        yield Finding("store", f"none yet at {directory}; the first add makes it", State.NOTE, {"path": str(directory)})
        return
    yield from _access(directory)
    try:
        with translate_access_errors(directory):
            yield from _opened_store(cli_context, directory)
    except FileNotFoundError:
        yield Finding("store", f"{directory} holds something, but no store", State.PROBLEM, {"path": str(directory)})
    except (MlflowIpfsError, OSError) as error:
        yield Finding("store", str(error), State.PROBLEM, {"path": str(directory)})


def _opened_store(cli_context: CliContext, directory: Path) -> Iterator[Finding]:
    store_id = inspection.read_store_id(directory)
    yield Finding("store", f"{directory}, format 1", facts={"path": str(directory), "format": 1, "store_id": store_id})
    yield _contents(directory)
    yield _log(directory)
    yield _sessions(directory)
    yield from _damage(directory)
    yield _writes(cli_context)


def _access(directory: Path) -> Iterator[Finding]:
    """Name what the store's owner, or else this user, may not use."""
    report = check_access(directory)
    owner, user = user_name(directory.stat().st_uid), user_name(os.geteuid())
    if not report.by_owner and not report.by_user:
        yield Finding("access", f"the owner {owner} can use every file", facts={"owner": owner, "unusable": []})
        return
    found, whom = (report.by_owner, f"the owner {owner}") if report.by_owner else (report.by_user, f"user {user}")
    foreign = [item for item in found if item.status.st_uid != directory.stat().st_uid]
    advice = remedy(directory, (foreign or found)[0].path)
    names = ", ".join(_unusable(directory, item) for item in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    rest = ", and so with the rest" if len(found) > 1 and not foreign else ""
    text = f"{whom} may not use {names}{more} in {directory}: {advice}{rest}"
    facts = {"owner": owner, "unusable": [str(item.path) for item in found[:LISTED]], "unusable_count": len(found)}
    yield Finding("access", text, State.PROBLEM, facts)


def _unusable(directory: Path, item: Unusable) -> str:
    name = "the directory itself" if item.path == directory else item.path.relative_to(directory)
    owner = f"{user_name(item.status.st_uid)}:{group_name(item.status.st_gid)}"
    return f"{name} (owner {owner}, mode {stat.S_IMODE(item.status.st_mode):04o})"


def _disk(directory: Path) -> Iterator[Finding]:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    kind, free = inspection.file_system_of(existing), free_bytes(existing)
    text = f"{kind or 'file system unknown'}, {format_size(free)} free"
    state = State.OK
    if kind is not None and is_network_file_system(kind):
        text, state = f"{text}; a network file system can't hold a store", State.PROBLEM
    elif free < LITTLE_ROOM_BYTES:
        state = State.NOTE
    yield Finding("disk", text, state, {"file_system": kind, "free_bytes": free})


def _contents(directory: Path) -> Finding:
    found = inspection.count_contents(directory)
    counts = found.counts
    parts = [
        f"{format_size(found.stored_bytes)} in {format_count(counts['blocks'], 'block')}",
        format_count(counts["pins"], "pin"),
        format_count(counts["refs"], "ref"),
        format_count(counts["entries"], "mfs:// file"),
        format_count(counts["frozen"], "frozen path"),
    ]
    if found.cached_bytes:
        parts.append(f"{format_size(found.cached_bytes)} of it cached")
    facts = counts | {"stored_bytes": found.stored_bytes, "cached_bytes": found.cached_bytes}
    return Finding("contents", ", ".join(parts), facts=facts)


def _log(directory: Path) -> Finding:
    waiting = inspection.log_bytes(directory)
    text = f"{format_size(waiting)} wait to be moved into the index" if waiting else "nothing waits"
    return Finding("log", text, facts={"log_bytes": waiting})


def _sessions(directory: Path) -> Finding:
    found = inspection.count_sessions(directory)
    text = f"{found.live} open"
    if found.dead:
        text += f", {found.dead} of processes that died; what they left goes when the store is opened next"
    state = State.NOTE if found.dead else State.OK
    return Finding("sessions", text, state, {"live": found.live, "dead": found.dead})


def _damage(directory: Path) -> Iterator[Finding]:
    quarantined, damaged = inspection.count_quarantined(directory), inspection.count_contents(directory).damaged_files
    facts = {"quarantined_files": quarantined, "damaged_files": damaged}
    if damaged:
        files = format_count(damaged, "damaged file")
        text = (
            f"{files} found in this store; `mlflow-ipfs scrub` names the blocks. Adding that content again heals it, or "
            "`mlflow-ipfs scrub --heal-from` a backup"
        )
        yield Finding("damage", text, State.PROBLEM, facts)
    elif quarantined:
        text = f"none; {format_count(quarantined, 'file')} in quarantine that nothing needs any more"
        yield Finding("damage", text, State.NOTE, facts)
    else:
        yield Finding("damage", "none was found so far", facts=facts)


def _writes(cli_context: CliContext) -> Finding:
    """Commit something that leaves nothing behind."""
    try:
        with cli_context.open_store() as store:
            store.pins.add(Pin(_PROBE_OWNER, _PROBE))
            store.pins.remove(_PROBE, _PROBE_OWNER)
    except (MlflowIpfsError, OSError) as error:
        return Finding("writing", str(error), State.PROBLEM)
    return Finding("writing", "works")


def _settings(settings: Settings, places: dict[str, str]) -> Iterator[Finding]:
    for item in fields(settings):
        value = _text_of(getattr(settings, item.name))
        place = places.get(item.name, "default")
        facts = {"name": item.name, "value": value, "source": place}
        yield Finding("settings", f"{item.name:<16} {value}  ({place})", facts=facts)


def _text_of(value: object) -> str:
    if isinstance(value, Profile):
        return value.name
    if isinstance(value, FixedSizeChunker):
        return f"size-{value.chunk_bytes}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return "of the profile" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _mlflow() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("mlflow")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("MLflow", "is not installed in this environment", State.PROBLEM)
        return
    problem = _load_problem(
        partial(importlib.import_module, "mlflow")
    )  # first of all: it imports our entry points itself
    if problem is not None:
        yield Finding("MLflow", f"{version} can't be imported: {problem}", State.PROBLEM, {"version": version})
        return
    doors = [entry for entry in _own_entry_points() if entry.group.startswith(("mlflow.", "sqlalchemy."))]
    broken = [(entry, reason) for entry in doors if (reason := _load_problem(entry.load))]
    facts = {"version": version, "entry_points": len(doors)}
    if not broken:
        yield Finding("MLflow", f"{version}; all {format_count(len(doors), 'entry point')} load", facts=facts)
    for entry, reason in broken:
        text = f"{version}; {entry.group} {entry.name!r} can't be loaded: {reason}"
        yield Finding("MLflow", text, State.PROBLEM, facts)


def _model_versions(database_uri: str) -> Iterator[Finding]:
    """Yield how many versions are frozen, and each that is not."""
    from mlflow_ipfs.backup.database_copies import find_database  # noqa: PLC0415 - SQLAlchemy and MLflow load slowly
    from mlflow_ipfs.binding.registry.unfrozen_versions import count_versions  # noqa: PLC0415

    try:
        found = count_versions(find_database(database_uri, {}))
    except (ImportError, MlflowIpfsError) as error:
        yield Finding("versions", str(error), State.PROBLEM)
        return
    text = f"{format_count(found.frozen, 'model version')} frozen, {len(found.unfrozen):,} not frozen"
    if found.prompts:
        text += f"; {format_count(found.prompts, 'prompt version')}, without files"
    facts = {"frozen": found.frozen, "unfrozen": len(found.unfrozen), "prompts": found.prompts}
    yield Finding("versions", text, facts=facts)
    for version in found.unfrozen:
        text = f"{version.name}/{version.version} is not frozen: its files at {version.location} may change"
        place = {"name": version.name, "version": version.version, "location": version.location}
        yield Finding("versions", text, State.NOTE, place)


def _own_entry_points() -> list[importlib.metadata.EntryPoint]:
    try:
        return list(importlib.metadata.distribution(DISTRIBUTION).entry_points)
    except importlib.metadata.PackageNotFoundError:
        return []


def _load_problem(load: Callable[[], object]) -> str | None:
    try:
        load()
    except Exception as error:  # noqa: BLE001 - whatever the import raises is the finding
        return f"{type(error).__name__}: {error}"
    return None


def _command_problem(entry: importlib.metadata.EntryPoint) -> str | None:
    reason = _load_problem(entry.load)
    if reason is None and not isinstance(entry.load(), click.Command):
        reason = f"{entry.value} is no click command"
    return reason


def _commands(own: Collection[str]) -> Iterator[Finding]:
    for entry in plugin_commands():
        package = entry.dist.name if entry.dist else "another package"
        facts = {"name": entry.name, "package": package}
        reason = "the name is taken" if entry.name in own else _command_problem(entry)
        if reason is None:
            yield Finding("commands", f"{entry.name} of {package}", facts=facts)
        else:
            yield Finding("commands", f"{entry.name} of {package} can't be loaded: {reason}", State.PROBLEM, facts)
