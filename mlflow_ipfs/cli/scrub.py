"""``scrub``: verify all data of the store, heal damage, and list the names that damage affects."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.root_names import affected_fields, affected_lines
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_result, printable
from mlflow_ipfs.content.checking.incomplete_names import find_incomplete_names
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_ipfs.content.storage.maintenance import Affected, AffectedReport, ScrubReport
    from mlflow_ipfs.content.store import ContentStore


@click.command(short_help="Verify all data of the store.")
@click.option(
    "--heal-from",
    "source",
    metavar="DIRECTORY",
    type=click.Path(readable=False, path_type=Path),
    help="Replace damaged data from a backup, or from another store that is not in use.",
)
@json_option
@pass_cli_context
def scrub(cli_context: CliContext, source: Path | None, *, as_json: bool) -> None:
    """Read and hash every byte of the store to find silent damage.

    Damaged data is replaced from intact copies in this store and, with --heal-from, in another one. The store records
    the remaining damage, so that adding the same content again heals it. The files, model versions, refs and pins that
    the remaining damage affects are listed, and the exit code is 4. So are names whose content lacks blocks, which a
    store with a rebuilt index may have.
    """
    with cli_context.open_store() as store:
        with (
            _heal_source(store, source, cli_context.settings.store),
            Progress("scrubbing", store.measure_usage([]).all_bytes) as progress,
        ):
            report = store.scrub(progress.advance)
        affected = store.find_affected([cid for cid, _ in report.problems])
        known = {(name.kind, name.name, name.cid) for name in affected.names}
        incomplete = [
            name for name in find_incomplete_names(store.storage) if (name.kind, name.name, name.cid) not in known
        ]
    if as_json:
        _print_json(report, affected, incomplete)
    else:
        lines = *_block_lines(report, affected), *affected_lines(affected.names), *_summary_lines(report)
        for line in (*lines, *affected_lines(incomplete, "incomplete")):
            click.echo(line)
    if report.problems:
        raise IntegrityError(_advice(report, affected))
    if incomplete:
        names = format_count(len(incomplete), "name")
        msg = f"{names} with missing blocks, which this store does not contain; add the content again, or restore a backup"
        raise IntegrityError(msg)


def _print_json(report: ScrubReport, affected: AffectedReport, incomplete: Sequence[Affected]) -> None:
    unneeded = set(affected.unneeded)
    for cid in report.healed:
        print_result({"cid": str(cid), "healed": True}, "", as_json=True)
    for cid, reason in report.problems:
        print_result({"cid": str(cid), "reason": reason, "unneeded": cid in unneeded}, "", as_json=True)
    for name in affected.names:
        print_result(affected_fields(name), "", as_json=True)
    for name in incomplete:
        print_result(affected_fields(name) | {"incomplete": True}, "", as_json=True)
    counts = {
        "problems": len(report.problems),
        "healed_count": len(report.healed),
        "affected_count": len(affected.names),
        "incomplete_count": len(incomplete),
    }
    print_result({"blocks": report.blocks, "size_bytes": report.size_bytes} | counts, "", as_json=True)


def _block_lines(report: ScrubReport, affected: AffectedReport) -> Iterator[str]:
    unneeded = set(affected.unneeded)
    for cid in report.healed:
        yield f"healed    {cid}"
    for cid, reason in report.problems:
        yield f"problem   {cid}"
        yield f"          {printable(reason)}"
        if cid in unneeded:
            yield "          no name needs this block"


def _summary_lines(report: ScrubReport) -> Iterator[str]:
    yield f"hashed    {format_count(report.blocks, 'block')}, {format_size(report.size_bytes)}"
    if not report.problems:
        yield f"verified  every block; {'all damage was healed' if report.healed else 'no damage found'}"


def _advice(report: ScrubReport, affected: AffectedReport) -> str:
    found = f"{format_count(len(report.problems), 'problem')} found"
    if len(affected.unneeded) == len(report.problems):
        return f"{found}, in content that no name needs; `mlflow-ipfs gc` removes it after the grace period"
    if not affected.names:
        return f"{found}; add the damaged content again to heal it"
    return (
        f"{found}, affecting {format_count(len(affected.names), 'name')}; add the damaged content again, or name a backup "
        "with --heal-from (`mlflow-ipfs verify NAME` lists the damaged files)"
    )


@contextmanager
def _heal_source(store: ContentStore, source: Path | None, own: Path) -> Iterator[None]:
    """Let a store heal itself from another store or a backup within a ``with`` block."""
    if source is None:
        yield
        return
    from mlflow_ipfs.backup.backup_directory import find_store  # noqa: PLC0415 - imports SQLAlchemy, which takes long

    directory = find_store(source)
    if directory.resolve() == own.resolve():
        msg = f"--heal-from {source} is the store itself; name a backup or another store"
        raise click.UsageError(msg)
    with open_local_storage(directory, read_only=True) as other:
        store.heal_from(other.blocks)
        try:
            yield
        finally:
            store.heal_from(None)
