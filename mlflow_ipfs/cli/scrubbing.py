"""``scrub``: is everything in the store what it should be, and if not, whom does it concern?"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.keeper_names import version_of
from mlflow_ipfs.cli.options import Workplace, json_option, pass_workplace
from mlflow_ipfs.cli.terminal import Progress, align, format_count, format_size, print_result, printable
from mlflow_ipfs.content.blockstore.local import open_local_storage
from mlflow_ipfs.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.content.blockstore.interface import Affected, AffectedReport, ScrubReport
    from mlflow_ipfs.content.store import ContentStore

_KINDS: Final = ("model version", "frozen", "file", "ref", "pin", "outbox")
_SHOWN: Final = 10  # names of each kind


@click.command(short_help="Read and hash everything in the store.")
@click.option(
    "--heal-from",
    "source",
    metavar="FOLDER",
    type=click.Path(readable=False, path_type=Path),
    help="A backup, or another store that nobody writes to, to replace what is damaged.",
)
@json_option
@pass_workplace
def scrub(workplace: Workplace, source: Path | None, *, as_json: bool) -> None:
    """Read and hash every byte of the store, to find what rotted without anybody looking.

    What is damaged is replaced from sound copies in this store, and from another one if that is
    named. The rest is noted, so that adding the content again heals it, and the runs' files, model
    versions, refs and pins that need it are listed. Exits with 4 if there is any.
    """
    with workplace.open_store() as store:
        with (
            _healing(store, source, workplace.settings.store),
            Progress("scrubbing", store.measure_usage([]).all_bytes) as progress,
        ):
            report = store.scrub(progress.advance)
        affected = store.find_affected([cid for cid, _ in report.problems])
    if as_json:
        _print_json(report, affected)
    else:
        for line in (*_found(report, affected), *_names(affected), *_sums(report)):
            click.echo(line)
    if report.problems:
        raise IntegrityError(_advice(report, affected))


def _print_json(report: ScrubReport, affected: AffectedReport) -> None:
    unneeded = set(affected.unneeded)
    for cid in report.healed:
        print_result({"cid": str(cid), "healed": True}, "", as_json=True)
    for cid, reason in report.problems:
        print_result({"cid": str(cid), "reason": reason, "unneeded": cid in unneeded}, "", as_json=True)
    for name in affected.names:
        fields = {"affected": name.kind, "name": name.name, "cid": str(name.cid)}
        print_result(fields | {"damaged": [str(cid) for cid in name.damaged]}, "", as_json=True)
    counts = {"problems": len(report.problems), "healed": len(report.healed), "affected": len(affected.names)}
    print_result({"blocks": report.blocks, "size_bytes": report.size_bytes} | counts, "", as_json=True)


def _found(report: ScrubReport, affected: AffectedReport) -> Iterator[str]:
    unneeded = set(affected.unneeded)
    for cid in report.healed:
        yield f"healed    {cid}"
    for cid, reason in report.problems:
        yield f"problem   {cid}"
        yield f"          {printable(reason)}"
        if cid in unneeded:
            yield "          Nothing needs it"


def _names(affected: AffectedReport) -> Iterator[str]:
    """Whom it concerns: a few of each kind, and how many more there are."""
    texts: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for name in affected.names:
        kind, text = _text_of(name)
        texts[kind].append(text)
    rows = []
    for kind, found in texts.items():
        rows += [("affected", kind, text) for text in found[:_SHOWN]]
        if len(found) > _SHOWN:
            rows.append(("affected", kind, f"… and {len(found) - _SHOWN:,} more; --json lists all"))
    yield from align(rows)


def _text_of(name: Affected) -> tuple[str, str]:
    version = version_of(name.name) if name.kind == "pin" else None
    if version is not None:
        return "model version", f"{printable(version)}  {name.cid}"
    if name.kind == "file":
        return "file", printable(name.name)
    if name.kind == "frozen":
        return "frozen", f"{printable(name.name)}/@{name.cid}"
    return name.kind, f"{printable(name.name)}  {name.cid}"


def _sums(report: ScrubReport) -> Iterator[str]:
    yield f"hashed    {format_count(report.blocks, 'block')}, {format_size(report.size_bytes)}"
    if not report.problems:
        yield "verified  every block; nothing is damaged" + (" any more" if report.healed else "")


def _advice(report: ScrubReport, affected: AffectedReport) -> str:
    found = f"{format_count(len(report.problems), 'problem')} found"
    if len(affected.unneeded) == len(report.problems):
        return f"{found}, in what nothing needs: `mlflow-ipfs gc` drops it in time"
    if not affected.names:
        return f"{found}: add that content again to heal it"
    return (
        f"{found}, which {format_count(len(affected.names), 'name')} above need{'s' * (len(affected.names) == 1)}: "
        "add that content again, or name a backup with --heal-from; `mlflow-ipfs verify` of a name says which files of it"
    )


@contextmanager
def _healing(store: ContentStore, source: Path | None, own: Path) -> Iterator[None]:
    """Let a store heal itself from another one, for the length of a ``with``."""
    if source is None:
        yield
        return
    from mlflow_ipfs.binding.backup_folder import find_store  # noqa: PLC0415 - imports SQLAlchemy, which takes long

    folder = find_store(source)
    if folder.resolve() == own.resolve():
        msg = f"--heal-from {source} is the store itself; name a backup of it, or another store"
        raise click.UsageError(msg)
    with open_local_storage(folder, read_only=True) as other:
        store.storage.heal_from(other.blocks)
        try:
            yield
        finally:
            store.storage.heal_from(None)
