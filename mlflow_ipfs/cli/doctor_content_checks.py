"""Check of ``doctor`` that compares MLflow's database with the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding.locations import MFS, cid_of_location, parse_mfs, scheme_of
from mlflow_ipfs.cli.doctor_findings import Finding, State
from mlflow_ipfs.cli.options import has_store
from mlflow_ipfs.cli.terminal import format_count
from mlflow_ipfs.content.checking.incomplete_names import find_incomplete_names
from mlflow_ipfs.errors import InvalidPathError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_ipfs.binding.databases.artifact_rows import ArtifactRow
    from mlflow_ipfs.cli.options import CliContext
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore

    _Frozen = tuple[str, CID]  # what the row describes, and the CID that it is frozen to

_TOPIC: Final = "content"
_MAX_LISTED: Final = 20  # findings of each kind; more are counted


def check_database_content(cli_context: CliContext, database_uri: str) -> Iterator[Finding]:
    """Check that the store has, keeps and can read what MLflow's database says is in it.

    Artifacts outside the store (``mlruns/``, ``s3://``) are not its subject.
    """
    from mlflow_ipfs.binding.databases.artifact_rows import iterate_rows  # noqa: PLC0415
    from mlflow_ipfs.binding.databases.connections import opened_database  # noqa: PLC0415
    from mlflow_ipfs.binding.databases.named_database import find_database  # noqa: PLC0415 - SQLAlchemy loads slowly

    try:
        if not has_store(cli_context.settings):
            return
        with opened_database(find_database(database_uri, {})) as connection:
            rows = [row for row in iterate_rows(connection) if row.has_artifacts]
        with cli_context.open_store() as store:
            yield from _compare(store, rows)
    except (ImportError, MlflowIpfsError, OSError) as error:
        yield Finding(_TOPIC, str(error), State.PROBLEM)


def _compare(store: ContentStore, rows: Sequence[ArtifactRow]) -> Iterator[Finding]:
    kept = {root.cid for root in store.roots() if root.cid is not None}
    frozen = [(f"{row.kind} {row.name}", cid) for row in rows if (cid := cid_of_location(row.uri)) is not None]
    mutable = [row for row in rows if scheme_of(row.uri) == MFS and cid_of_location(row.uri) is None]
    present, absent = _partition(store, frozen)
    lost = [f"{name}: {cid} is not in the store" for name, cid in absent]
    lost += [f"{row.kind} {row.name}: no files at {row.uri}" for row in mutable if not _has_files(store, row.uri)]
    unkept = [
        f"{name}: no pin keeps {cid}, so a gc removes it; run `mlflow-ipfs pin add {cid}`"
        for name, cid in present
        if cid not in kept and cid.identity_data is None
    ]
    incomplete = [
        f"{name.kind} {name.name}: the block {name.damaged[0]} is missing or unreadable"
        for name in find_incomplete_names(store.storage)
    ]
    checked = len(frozen) + len(mutable)
    facts = {"checked": checked, "lost": len(lost), "unkept": len(unkept), "incomplete": len(incomplete)}
    if not (lost or unkept or incomplete):
        text = f"{format_count(checked, 'location')} of the database and all names of the store are complete"
        yield Finding(_TOPIC, text, facts=facts)
        return
    text = f"{len(lost):,} lost, {len(unkept):,} not kept, {len(incomplete):,} incomplete"
    yield Finding(_TOPIC, f"{text}; add what is lost again, or restore a backup of the store", State.NOTE, facts)
    for texts in (lost, unkept, incomplete):
        for text in texts[:_MAX_LISTED]:
            yield Finding(_TOPIC, text, State.PROBLEM)
        if len(texts) > _MAX_LISTED:
            yield Finding(_TOPIC, f"… and {len(texts) - _MAX_LISTED:,} more of these", State.PROBLEM)


def _partition(store: ContentStore, frozen: Sequence[_Frozen]) -> tuple[list[_Frozen], list[_Frozen]]:
    """Split frozen rows into those whose root the store has, and the others."""
    present: list[_Frozen] = []
    absent: list[_Frozen] = []
    for name, cid in frozen:
        (present if store.storage.blocks.has(cid) else absent).append((name, cid))
    return present, absent


def _has_files(store: ContentStore, uri: str) -> bool:
    try:
        path = parse_mfs(uri)
        return store.files.split_frozen(path) is not None or store.files.stat(path) is not None
    except (InvalidPathError, FileNotFoundError):
        return False
