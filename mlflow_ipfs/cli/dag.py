"""``dag``: statistics of DAGs, with the output of Kubo's command of this name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    shared_options,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import Progress, print_result
from mlflow_ipfs.content.blocks.seen_blocks import SeenBlocks
from mlflow_ipfs.content.dag import walk_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_ipfs.binding.uris import ContentName
    from mlflow_ipfs.content.cid import CID

_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class DagSize(NamedTuple):
    """Number and total size of the blocks of a DAG. A block that occurs several times counts once."""

    cid: CID
    blocks: int
    size_bytes: int


@click.group()
@shared_options
def dag() -> None:
    """Show statistics of DAGs."""


@dag.command()
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def stat(
    cli_context: CliContext, contents: tuple[ContentName, ...], tracking_uri: str | None, *, as_json: bool
) -> None:
    """Read every block of DAGs; print how many there are, their size, and how much the DAGs share."""
    seen = SeenBlocks()
    sizes: list[DagSize] = []
    unique_blocks = unique_bytes = 0
    with cli_context.open_store() as store, Progress("reading") as progress:
        for content in contents:
            found = find(store, content, tracking_uri)
            root, blocks, size_bytes = found.root, 0, 0
            for cid, data in walk_blocks(found.store.blocks, root):
                blocks, size_bytes = blocks + 1, size_bytes + len(data)
                if seen.add(cid):
                    unique_blocks, unique_bytes = unique_blocks + 1, unique_bytes + len(data)
                progress.advance(len(data))
            sizes.append(DagSize(root, blocks, size_bytes))
    if not as_json:
        click.echo("\n".join(_lines(sizes, unique_blocks, unique_bytes)))
        return
    for size in sizes:
        print_result(size._asdict() | {"cid": str(size.cid)}, "", as_json=True)
    shared_bytes = sum(size.size_bytes for size in sizes) - unique_bytes
    totals = {"unique_blocks": unique_blocks, "total_bytes": unique_bytes, "shared_bytes": shared_bytes}
    print_result(totals, "", as_json=True)


def _lines(sizes: Sequence[DagSize], unique_blocks: int, unique_bytes: int) -> list[str]:
    """Return the lines that `ipfs dag stat` prints, except the empty ones at the end."""
    width = len(str(sizes[0].cid))
    all_bytes = sum(size.size_bytes for size in sizes)
    shared_bytes = all_bytes - unique_bytes
    return [
        "",
        f"{'CID':<{width}}\t{'Blocks':<15}\tSize",
        *(f"{size.cid!s:<{width}}\t{size.blocks:<15}\t{size.size_bytes}" for size in sizes),
        "",
        "Summary",
        f"Total Size: {unique_bytes} ({_format_size(unique_bytes)})",
        f"Unique Blocks: {unique_blocks}",
        f"Shared Size: {shared_bytes} ({_format_size(shared_bytes)})",
        f"Ratio: {all_bytes / unique_bytes:.6f}" if unique_bytes else "Ratio: NaN",
    ]


def _format_size(size_bytes: int) -> str:
    """Return a size as Kubo prints it: at least two digits, with one decimal place below 10."""
    if size_bytes < 10:
        return f"{size_bytes} B"
    power = min((len(str(size_bytes)) - 1) // 3, len(_UNITS) - 1)
    value = math.floor(size_bytes / 1000**power * 10 + 0.5) / 10
    return f"{value:.0f} {_UNITS[power]}" if value >= 10 else f"{value:.1f} {_UNITS[power]}"
