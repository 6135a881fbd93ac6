"""Output of ``doctor --rebuild``: a report of the new index, as text and as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from mlflow_ipfs.cli.options import has_store
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_result, printable
from mlflow_ipfs.content.storage.local.repair.rebuild import measure_files, rebuild_index
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mlflow_ipfs.cli.options import CliContext
    from mlflow_ipfs.content.storage.local.repair.rebuild import IndexCopyUse, LeftName, RebuildReport

_SHOWN: Final = 20  # items of each list; --json prints all


def rebuild(cli_context: CliContext, *, as_json: bool) -> None:
    """Make a new index for the store, and print a report.

    Raises:
        NotFoundError: the path does not contain a store.
        MlflowIpfsError: the index was made, but some content or names are damaged or lost.
    """
    settings = cli_context.settings
    if not has_store(settings):
        msg = f"no store found at {settings.store}; name the directory of a store with --store"
        raise NotFoundError(msg)
    with Progress("rebuilding the index", measure_files(settings.store)) as progress:
        report = rebuild_index(
            settings.store,
            timeout_seconds=settings.timeout_seconds,
            chunkers=[settings.chunker] if settings.chunker is not None else [],
            progress=progress.advance,
        )
    if as_json:
        print_result(_fields(report), "", as_json=True)
    else:
        for line in _lines(report, settings.store):
            click.echo(line)
    if not report.is_whole:
        msg = "the store has a new index and can be used, but some content or names are damaged or lost; see the list above"
        raise MlflowIpfsError(msg)
    if not report.sources:
        msg = (
            "the store has a new index, but no copy of the old one was found: all names are lost, and so are small files "
            "and directories that only the old index contained. If there is a backup, restore it with `mlflow-ipfs restore`"
        )
        raise MlflowIpfsError(msg)


def _fields(report: RebuildReport) -> dict[str, Any]:
    return {
        "store_id": report.store_id,
        "files": report.files,
        "blocks": report.blocks,
        "size_bytes": report.size_bytes,
        "names": report.names,
        "sources": [
            {
                "path": str(use.path),
                "state": use.state,
                "made_at": _time(use.made_at),
                "names": use.names,
                "inline_blocks": use.blocks,
            }
            for use in report.sources
        ],
        "names_current": report.are_names_current,
        "recovered_owner": report.recovered_owner,
        "recovered": [str(cid) for cid in report.recovered],
        "recovered_incomplete": [str(cid) for cid in report.recovered_incomplete],
        "lost": _name_fields(report.lost),
        "incomplete": _name_fields(report.incomplete),
        "damaged": [{"file": file.name, "reason": file.reason} for file in report.damaged],
        "quarantined": [{"file": file.name, "reason": file.reason} for file in report.quarantined],
        "old_index": str(report.old_index) if report.old_index else None,
        "whole": report.is_whole,
    }


def _name_fields(names: Iterable[LeftName]) -> list[dict[str, str | None]]:
    return [{"kind": name.kind, "name": name.name, "cid": str(name.cid) if name.cid else None} for name in names]


def _lines(report: RebuildReport, directory: Path) -> Iterator[str]:
    yield _line("store", str(directory))
    blocks, files = format_count(report.blocks, "block"), format_count(report.files, "file")
    yield _line("found", f"{blocks} in {files} and in the index, {format_size(report.size_bytes)}; all were hashed")
    yield from _titled("sources", [_source_text(use, directory) for use in report.sources])
    if not report.sources:
        yield _line("sources", "none: neither an old index nor a backup of it was found")
    names = [format_count(count, kind.noun) for kind, count in report.names.items() if count]
    yield _line("names", ", ".join(names) or "none")
    yield from _titled("", _lost_names_text(report))
    if report.old_index is not None:
        yield _line("old index", f"kept in {report.old_index}")
    if report.recovered_owner is not None:
        roots = format_count(len(report.recovered), "root")
        yield _line("recovered", f"{roots} without a name, pinned for {report.recovered_owner}")
        if report.recovered_incomplete:
            count = format_count(len(report.recovered_incomplete), "root")
            yield _line("", f"{count} of these lack blocks: remains of content that was removed or lost")
    yield from _problem_lines(report)
    yield from _advice_lines(report)


def _source_text(use: IndexCopyUse, directory: Path) -> str:
    path = use.path.relative_to(directory.resolve()) if use.path.is_relative_to(directory.resolve()) else use.path
    made = f", made {_time(use.made_at)}" if use.made_at else ""
    if use.state.startswith("unusable"):
        return f"{path}{made}: {printable(use.state)}"
    if use.state == "whole" and not use.names and not use.blocks:
        return f"{path}{made}: whole, not needed"
    return f"{path}{made}: {use.state}; {format_count(use.names, 'name')}, {format_count(use.blocks, 'small block')}"


def _time(seconds: int | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _lost_names_text(report: RebuildReport) -> list[str]:
    """Return which names are lost because no readable copy of the index contains them."""
    if report.are_names_current:
        return []
    copies = [use for use in report.sources if not use.state.startswith("unusable")]
    if not copies:
        return ["all names are lost, because no copy of the index is readable"]
    newest_backup = next((_time(use.made_at) for use in copies if use.made_at), None)
    since = f"created after {newest_backup}" if newest_backup else "that are in no backup"
    if copies[0].made_at is None:
        return [f"names {since} are lost if they were on damaged pages of {copies[0].path.name}"]
    return [f"names {since} are lost"]


def _problem_lines(report: RebuildReport) -> Iterator[str]:
    yield from _titled("! lost", [f"{_name_text(name)}: {_loss_reason(name)}" for name in report.lost])
    missing = "a block below it is missing or damaged"
    yield from _titled("! incomplete", [f"{_name_text(name)}: {missing}" for name in report.incomplete])
    yield from _titled("! damaged", [f"{printable(file.name)}: {file.reason}" for file in report.damaged])
    yield from _titled("! quarantined", [f"{printable(file.name)}: {file.reason}" for file in report.quarantined])


def _name_text(name: LeftName) -> str:
    return f"{name.kind} {printable(name.name)} {name.cid or '(unreadable)'}"


def _loss_reason(name: LeftName) -> str:
    return "its content is not in the store" if name.cid else "its row in the old index is damaged"


def _titled(title: str, texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts[:_SHOWN]):
        yield _line("" if number else title, text)
    if len(texts) > _SHOWN:
        yield _line("", f"… and {len(texts) - _SHOWN:,} more; --json lists all")


def _advice_lines(report: RebuildReport) -> Iterator[str]:
    steps = []
    if report.recovered_owner is not None:
        steps += [
            f"list the recovered roots with `mlflow-ipfs pin ls --owner {report.recovered_owner}`; then",
            f"`pin add` the roots to keep, and `pin rm --owner {report.recovered_owner}` the others",
        ]
    if report.lost:
        steps.append("add the content of the lost names again, and pin or log it again")
    if report.incomplete or report.damaged:
        steps.append("add the incomplete and damaged content again; `mlflow-ipfs verify CID` lists each bad block")
    if report.quarantined:
        steps += [
            "a quarantined file may need a chunker that the rebuild did not try: set MLFLOW_IPFS_CHUNKER",
            "to that chunker, or put a copy of store.db into backup/, and run `doctor --rebuild` again",
        ]
    yield from _titled("next", steps or ["restart the programs that had the store open"])


def _line(title: str, text: str) -> str:
    sign, title = ("!", title[2:]) if title.startswith("! ") else (" ", title)
    return f"{sign} {title:<12} {text}"
