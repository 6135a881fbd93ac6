"""``gc``: what goes, and what keeps the rest."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.keeper_names import Group, group_of
from mlflow_ipfs.cli.options import Workplace, json_option, pass_workplace
from mlflow_ipfs.cli.terminal import align, format_count, format_size, print_result, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.content.blockstore.interface import GCReport, Keeper

_SHOWN: Final = 20  # lines about what keeps content
_NOUNS: Final = {"model": "version", "frozen": "frozen path", "outbox": "waiting name"}


@click.command(short_help="Drop what nothing needs.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what keeps content, and what would go.")
@click.option(
    "--all", "show_all", is_flag=True, help="With --dry-run: name all that keeps content, however much it is."
)
@click.option(
    "--grace", "grace_hours", type=click.FloatRange(min=0), default=24, show_default=True, metavar="HOURS",
    help="Drop only what a gc that many hours ago found unneeded already.",
)  # fmt: skip
@json_option
@pass_workplace
def gc(workplace: Workplace, *, dry_run: bool, show_all: bool, grace_hours: float, as_json: bool) -> None:
    """Drop what no pin, ref, mfs:// file or model version needs.

    What is found unneeded for the first time is only condemned: it goes with a gc after the
    grace, unless something needs it again. Training may go on meanwhile.
    """
    if show_all and not dry_run:
        msg = "--all is about what --dry-run prints; add --dry-run"
        raise click.UsageError(msg)
    with workplace.open_store() as store:
        keepers = list(store.keepers()) if dry_run else []
        report = store.collect_garbage(dry_run=dry_run, grace_seconds=grace_hours * 3600)
    if as_json:
        for keeper in keepers:
            print_result(asdict(keeper) | {"cid": str(keeper.cid) if keeper.cid else None}, "", as_json=True)
    else:
        for line in _lines(keepers) if show_all or len(keepers) <= _SHOWN else _sums(keepers):
            click.echo(line)
    print_result(asdict(report), _summary(report, grace_hours), as_json=as_json)


def _lines(keepers: Sequence[Keeper]) -> list[str]:
    """Each keeper."""
    return align(("kept by", keeper.kind, printable(keeper.name), _what(keeper)) for keeper in keepers)


def _what(keeper: Keeper) -> str:
    if keeper.cid is not None:
        return str(keeper.cid)
    return f"{format_count(keeper.file_count, 'file')}, {format_size(keeper.size_bytes)}"


def _sums(keepers: Sequence[Keeper]) -> list[str]:
    """The largest groups of keepers."""
    groups: dict[Group, list[Keeper]] = defaultdict(list)
    for keeper in keepers:
        groups[group_of(keeper)].append(keeper)
    largest = sorted(groups.items(), key=lambda item: (-_size_of(item[1]), -len(item[1]), item[0]))
    rows = [("kept by", group.kind, printable(group.name), _sum(group, found)) for group, found in largest[:_SHOWN]]
    lines = align(rows)
    if len(groups) > _SHOWN:
        rest = sum(len(found) for _, found in largest[_SHOWN:])
        lines.append(
            f"kept by  {format_count(rest, 'more name')} in {format_count(len(groups) - _SHOWN, 'more group')}"
        )
    return [*lines, f"         (these are groups of {len(keepers):,} names; --all or --json names each)"]


def _size_of(keepers: Sequence[Keeper]) -> int:
    return sum(keeper.size_bytes for keeper in keepers)


def _sum(group: Group, keepers: Sequence[Keeper]) -> str:
    if group.kind == "experiment":
        files = format_count(sum(keeper.file_count for keeper in keepers), "file")
        return f"{files} in {format_count(len(keepers), 'folder')}, {format_size(_size_of(keepers))}"
    if len(keepers) == 1:
        return str(keepers[0].cid)
    return format_count(len(keepers), _NOUNS.get(group.kind, group.kind))


def _summary(report: GCReport, grace_hours: float) -> str:
    verb = "would remove" if report.dry_run else "removed"
    removed, kept = format_count(report.removed_blocks, "block"), format_count(report.kept_blocks, "block")
    line = f"{verb} {removed}, {format_size(report.freed_bytes)}; {kept} kept"
    if report.evicted_files:
        copies = format_count(report.evicted_files, "file")
        line += f"; {verb} {copies}, {format_size(report.evicted_bytes)}, from the cache"
    if not report.condemned_blocks:
        return line
    later = f"{format_count(report.condemned_blocks, 'block')}, {format_size(report.condemned_bytes)}"
    when = (
        f"to go after {grace_hours:g} h (--grace 0: now)"
        if grace_hours
        else "to go when nobody publishes who may rely on them"
    )
    return f"{line}; {later} {when}"
