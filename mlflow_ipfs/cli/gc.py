"""``gc``: remove content that nothing retains."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.binding.databases.claims import list_shared
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.root_names import Group, group_of
from mlflow_ipfs.cli.terminal import align, format_count, format_size, print_notice, print_result, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.storage.maintenance import GCReport

_SHOWN: Final = 20  # lines about what retains content
_NOUNS: Final = {"model": "version", "frozen": "frozen path", "outbox": "pending name"}


@click.command(short_help="Remove content that nothing retains.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed and what retains the rest.")
@click.option(
    "--all", "show_all", is_flag=True, help="With --dry-run: list every name that retains content, not only groups."
)
@click.option(
    "--grace", "grace_hours", type=click.FloatRange(min=0), default=24, show_default=True, metavar="HOURS",
    help="Remove only content that was found deletable at least HOURS ago.",
)  # fmt: skip
@json_option
@pass_cli_context
def gc(cli_context: CliContext, *, dry_run: bool, show_all: bool, grace_hours: float, as_json: bool) -> None:
    """Remove content that no pin, ref, mfs:// file or model version retains.

    The first gc that finds such content marks it as deletable. A gc after the grace period removes it, unless something
    needs it again. Training can continue while gc runs.
    """
    if show_all and not dry_run:
        msg = "--all requires --dry-run"
        raise click.UsageError(msg)
    with cli_context.open_store() as store:
        roots = list(store.roots()) if dry_run else []
        report = store.collect_garbage(dry_run=dry_run, grace_seconds=grace_hours * 3600)
        shared = list_shared(store.storage)
    if as_json:
        for root in roots:
            fields = asdict(root) | {"kind": root.kind_label, "cid": str(root.cid) if root.cid else None}
            print_result(fields, "", as_json=True)
    else:
        for line in _lines(roots) if show_all or len(roots) <= _SHOWN else _group_lines(roots):
            click.echo(line)
    print_result(asdict(report), _summary(report, grace_hours), as_json=as_json)
    for sighting in shared:
        print_notice(printable(sighting.explain()))


def _lines(roots: Sequence[Root]) -> list[str]:
    """Return one line for each root."""
    return align(("kept by", root.kind_label, printable(root.name), _content_of(root)) for root in roots)


def _content_of(root: Root) -> str:
    if root.cid is not None:
        return str(root.cid)
    return f"{format_count(root.file_count, 'file')}, {format_size(root.size_bytes)}"


def _group_lines(roots: Sequence[Root]) -> list[str]:
    """Return one line for each of the largest groups of roots."""
    groups: dict[Group, list[Root]] = defaultdict(list)
    for root in roots:
        groups[group_of(root)].append(root)
    largest = sorted(groups.items(), key=lambda item: (-_size_of(item[1]), -len(item[1]), item[0]))
    rows = [
        ("kept by", group.kind, printable(group.name), _group_content(group, found))
        for group, found in largest[:_SHOWN]
    ]
    lines = align(rows)
    if len(groups) > _SHOWN:
        rest = sum(len(found) for _, found in largest[_SHOWN:])
        lines.append(
            f"kept by  {format_count(rest, 'more name')} in {format_count(len(groups) - _SHOWN, 'more group')}"
        )
    return [*lines, f"         (groups of {len(roots):,} names; --all or --json lists each name)"]


def _size_of(roots: Sequence[Root]) -> int:
    return sum(root.size_bytes for root in roots)


def _group_content(group: Group, roots: Sequence[Root]) -> str:
    if group.kind == "experiment":
        files = format_count(sum(root.file_count for root in roots), "file")
        return f"{files} in {format_count(len(roots), 'directory')}, {format_size(_size_of(roots))}"
    if len(roots) == 1:
        return str(roots[0].cid)
    return format_count(len(roots), _NOUNS.get(group.kind, group.kind))


def _summary(report: GCReport, grace_hours: float) -> str:
    removed, kept = format_count(report.removed_blocks, "block"), format_count(report.kept_blocks, "block")
    verb, also = ("would remove", "would keep") if report.dry_run else ("removed", "kept")
    line = f"{verb} {removed} ({format_size(report.freed_bytes)}); {also} {kept}"
    if report.evicted_files:
        copies = format_count(report.evicted_files, "file")
        line += f"; {verb} {copies} ({format_size(report.evicted_bytes)}) from the cache"
    if not report.deletable_blocks:
        return line
    later = f"{format_count(report.deletable_blocks, 'block')} ({format_size(report.deletable_bytes)})"
    when = (
        f"after a grace period of {grace_hours:g} h (--grace 0: now)"
        if grace_hours
        else "after the publications in progress, which may rely on them"
    )
    return f"{line}; {later} deletable {when}"
