"""Checks of ``doctor`` on the store and its disk."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.databases.claims import list_shared
from mlflow_ipfs.cli.doctor_findings import Finding, State
from mlflow_ipfs.cli.options import has_store
from mlflow_ipfs.cli.terminal import format_count, format_size
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.local.index.access_check import check_access
from mlflow_ipfs.content.storage.local.reading import inspection
from mlflow_ipfs.content.system.access import group_name, remedy, translate_access_errors, user_name
from mlflow_ipfs.content.system.disk import free_bytes
from mlflow_ipfs.content.system.mounts import is_network_file_system
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mlflow_ipfs.cli.options import CliContext
    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.storage.local.index.access_check import Unusable

_MAX_NAMED: Final = 5  # unusable files in the text of a finding
_MAX_LISTED: Final = 1000  # unusable files in the facts of a finding
_LOW_SPACE_BYTES: Final = 1 << 30  # less free space than this is noted
_PROBE: Final = CID(1, 0x55, b"\x00\x00")  # the empty identity CID, whose pin retains nothing
_PROBE_OWNER: Final = "doctor"


def check_store(cli_context: CliContext, settings: Settings) -> Iterator[Finding]:
    """Check the disk of the store, the access to its files, and its contents.

    An error of the store becomes a finding, and ends the remaining checks of the store.
    """
    directory = settings.store
    try:
        with translate_access_errors(directory):
            yield from _check_disk(directory)
        exists = has_store(settings)
    except MlflowIpfsError as error:
        yield Finding("store", str(error), State.PROBLEM, {"path": str(directory)})
        return
    if not exists:
        text = f"none at {directory} yet; the first `mlflow-ipfs add` creates it"
        yield Finding("store", text, State.NOTE, {"path": str(directory)})
        return
    yield from _check_access(directory)
    try:
        with translate_access_errors(directory):
            yield from _check_contents(cli_context, directory)
    except FileNotFoundError:
        text = (
            f"{directory} contains files but is not a store; name another directory with --store or MLFLOW_IPFS_STORE"
        )
        yield Finding("store", text, State.PROBLEM, {"path": str(directory)})
    except (MlflowIpfsError, OSError) as error:
        yield Finding("store", str(error), State.PROBLEM, {"path": str(directory)})


def _check_contents(cli_context: CliContext, directory: Path) -> Iterator[Finding]:
    store_id = inspection.read_store_id(directory)
    yield Finding("store", f"{directory}, format 1", facts={"path": str(directory), "format": 1, "store_id": store_id})
    yield _count_contents(directory)
    yield _measure_log(directory)
    yield _count_sessions(directory)
    yield from _check_damage(directory)
    yield _check_writing(cli_context)
    yield from _check_databases(cli_context)


def _check_access(directory: Path) -> Iterator[Finding]:
    """Yield which files the owner of the store, or else this user, cannot access."""
    report = check_access(directory)
    owner, user = user_name(directory.stat().st_uid), user_name(os.geteuid())
    if not report.by_owner and not report.by_user:
        yield Finding("access", f"the owner {owner} can access every file", facts={"owner": owner, "unusable": []})
        return
    found, subject = (report.by_owner, f"the owner {owner}") if report.by_owner else (report.by_user, f"user {user}")
    foreign = [item for item in found if item.status.st_uid != directory.stat().st_uid]
    advice = remedy(directory, (foreign or found)[0].path)
    names = ", ".join(_describe(directory, item) for item in found[:_MAX_NAMED])
    more = f" and {len(found) - _MAX_NAMED} more" if len(found) > _MAX_NAMED else ""
    rest = ", and likewise for the other files" if len(found) > 1 and not foreign else ""
    text = f"{subject} cannot access {names}{more} in {directory}: {advice}{rest}"
    facts = {"owner": owner, "unusable": [str(item.path) for item in found[:_MAX_LISTED]], "unusable_count": len(found)}
    yield Finding("access", text, State.PROBLEM, facts)


def _describe(directory: Path, item: Unusable) -> str:
    name = "the directory itself" if item.path == directory else item.path.relative_to(directory)
    owner = f"{user_name(item.status.st_uid)}:{group_name(item.status.st_gid)}"
    return f"{name} (owner {owner}, mode {stat.S_IMODE(item.status.st_mode):04o})"


def _check_disk(directory: Path) -> Iterator[Finding]:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    kind, free = inspection.file_system_of(existing), free_bytes(existing)
    text = f"{kind or 'file system unknown'}, {format_size(free)} free"
    state = State.OK
    if kind is not None and is_network_file_system(kind):
        text, state = f"{text}; a store does not work on a network file system; move it to a local disk", State.PROBLEM
    elif free < _LOW_SPACE_BYTES:
        state = State.NOTE
    yield Finding("disk", text, state, {"file_system": kind, "free_bytes": free})


def _count_contents(directory: Path) -> Finding:
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
        parts.append(f"including {format_size(found.cached_bytes)} in the cache")
    facts = counts | {"stored_bytes": found.stored_bytes, "cached_bytes": found.cached_bytes}
    return Finding("contents", ", ".join(parts), facts=facts)


def _measure_log(directory: Path) -> Finding:
    waiting = inspection.log_bytes(directory)
    text = f"{format_size(waiting)} not yet written to the index file" if waiting else "empty"
    return Finding("log", text, facts={"log_bytes": waiting})


def _count_sessions(directory: Path) -> Finding:
    found = inspection.count_sessions(directory)
    text = f"{found.live} open"
    if found.dead:
        text += f", {found.dead} of terminated processes; opening the store cleans up after them"
    state = State.NOTE if found.dead else State.OK
    return Finding("sessions", text, state, {"live": found.live, "dead": found.dead})


def _check_damage(directory: Path) -> Iterator[Finding]:
    quarantined, damaged = inspection.count_quarantined(directory), inspection.count_contents(directory).damaged_files
    facts = {"quarantined_files": quarantined, "damaged_files": damaged}
    if damaged:
        files = format_count(damaged, "damaged file")
        text = (
            f"{files} in this store; `mlflow-ipfs scrub` lists the blocks. To heal the damage, add the content again or run "
            "`mlflow-ipfs scrub --heal-from BACKUP`"
        )
        yield Finding("damage", text, State.PROBLEM, facts)
    elif quarantined:
        text = f"none; {format_count(quarantined, 'file')} in quarantine, no longer needed"
        yield Finding("damage", text, State.NOTE, facts)
    else:
        yield Finding("damage", "none found so far", facts=facts)


def _check_databases(cli_context: CliContext) -> Iterator[Finding]:
    """Yield every registry id that several databases have."""
    with cli_context.open_store() as store:
        for sighting in list_shared(store.storage):
            yield Finding("databases", sighting.explain(), State.NOTE, {"registry_id": sighting.registry_id})


def _check_writing(cli_context: CliContext) -> Finding:
    """Check that the store can be written to, by adding and removing a pin that retains nothing."""
    try:
        with cli_context.open_store() as store:
            store.pins.add(Pin(_PROBE_OWNER, _PROBE))
            store.pins.remove(_PROBE, _PROBE_OWNER)
    except (MlflowIpfsError, OSError) as error:
        return Finding("writing", str(error), State.PROBLEM)
    return Finding("writing", "works")
