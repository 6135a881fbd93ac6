"""``refs``: list the links of content, with the options and output of Kubo's command of this name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import print_result, printable
from mlflow_ipfs.content.cid import DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.content.codecs.links import LEAF_CODECS, links
from mlflow_ipfs.content.dag import decode_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.binding.uris import ContentName
    from mlflow_ipfs.content.blocks.base import BlockReader
    from mlflow_ipfs.content.cid import CID

_EDGES: Final = "<src> -> <dst>"
_UNLIMITED: Final = -1


class Edge(NamedTuple):
    """One link: the CID of the block that contains it, the CID that it leads to, and its name, ``""`` if it has none."""

    source: CID
    target: CID
    name: str


@click.command(short_help="List the links of content.")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@click.option("-r", "--recursive", is_flag=True, help="Also list the links of the blocks below.")
@click.option("-u", "--unique", is_flag=True, help="Print each CID once.")
@click.option("-e", "--edges", is_flag=True, help=f"Print both ends of each link, as {_EDGES}.")
@click.option("--format", "template", metavar="FORMAT", help="What to print: any of <src>, <dst> and <linkname>.")
@click.option("--max-depth", type=int, default=_UNLIMITED, metavar="N", help="With --recursive: levels to list.")
@tracking_option
@json_option
@pass_cli_context
def refs(
    cli_context: CliContext,
    contents: tuple[ContentName, ...],
    template: str | None,
    max_depth: int,
    tracking_uri: str | None,
    *,
    recursive: bool,
    as_json: bool,
    **flags: bool,
) -> None:
    """List the CIDs that the blocks of content link to, in the order of the links.

    Without --unique, a CID is listed once for each link to it.
    """
    if flags["edges"] and template is not None:
        msg = "--edges and --format cannot be used together"
        raise click.UsageError(msg)
    template = template or (_EDGES if flags["edges"] else "<dst>")
    depth = max_depth if recursive else 1
    seen: dict[CID, int] | None = {} if flags["unique"] else None
    with cli_context.open_store() as store:
        for content in contents:
            found = find(store, content, tracking_uri)
            for edge in walk_edges(found.store.blocks, found.root, depth, seen):
                fields = {"cid": str(edge.target), "source": str(edge.source), "name": edge.name}
                print_result(fields, _fill(template, edge), as_json=as_json)


def _fill(template: str, edge: Edge) -> str:
    for token, value in (("<src>", edge.source), ("<dst>", edge.target), ("<linkname>", printable(edge.name))):
        template = template.replace(token, str(value))
    return template


def walk_edges(reader: BlockReader, root: CID, depth: int, seen: dict[CID, int] | None) -> Iterator[Edge]:
    """Yield the links below a block, depth first.

    Args:
        reader: the source of the blocks.
        root: the block to start from.
        depth: number of levels to yield; negative: all.
        seen: the CIDs that were yielded before, with the levels that were left below them; these are not yielded again,
            and their links only if more levels are left now. None: yield every link, also repeated ones.
    """
    above = [(_edges_of(reader, root), depth)] if depth else []
    while above:
        edges, levels = above[-1]
        edge = next(edges, None)
        if edge is None:
            above.pop()
            continue
        if seen is None or edge.target not in seen:
            yield edge
        elif levels < 0 or levels - 1 <= seen[edge.target]:
            continue
        if seen is not None:
            seen[edge.target] = levels - 1
        if levels != 1 and edge.target.codec not in LEAF_CODECS:
            above.append((_edges_of(reader, edge.target), levels - 1))


def _edges_of(reader: BlockReader, cid: CID) -> Iterator[Edge]:
    data = reader.get(cid)
    if cid.codec == DAG_PB:
        return iter([Edge(cid, link.cid, decode_name(link.name or b"")) for link in decode_node(data).links])
    return iter([Edge(cid, target, "") for target in links(cid, data)])
