"""``du``: show how much of the store each experiment, model, ref and pin uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.root_names import Group, experiment_of, group_of
from mlflow_ipfs.cli.terminal import align, format_size, print_result, printable
from mlflow_ipfs.content.mfs import MfsPath

if TYPE_CHECKING:
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.store import ContentStore


@click.command(short_help="Show the size of each experiment, model, ref and pin.")
@json_option
@pass_cli_context
def du(cli_context: CliContext, *, as_json: bool) -> None:
    """Show how much of the store each experiment, registered model, ref and pin uses.

    The first size counts all blocks that the item needs. The second size counts the blocks that no other item needs:
    the space that is freed when the item is deleted. A shared block counts for each item that needs it.
    """
    with cli_context.open_store() as store:
        groups = _collect_groups(store)
        report = store.measure_usage(list(groups.values()))
    found = sorted(zip(groups, report.groups, strict=True), key=lambda pair: -pair[1].total_bytes)
    if as_json:
        for (kind, name), usage in found:
            fields = {"kind": kind, "name": name, "total_bytes": usage.total_bytes, "own_bytes": usage.own_bytes}
            print_result(fields, "", as_json=True)
    else:
        rows = [
            (kind, printable(name), format_size(usage.total_bytes), f"{format_size(usage.own_bytes)} exclusive")
            for (kind, name), usage in found
        ]
        for line in align(rows, right={2, 3}):
            click.echo(line)
    fields = {
        "all_bytes": report.all_bytes,
        "unneeded_bytes": report.unneeded_bytes,
        "cached_bytes": report.cached_bytes,
    }
    line = f"{format_size(report.all_bytes)} in total, {format_size(report.unneeded_bytes)} deletable"
    if report.cached_bytes:
        line += f"; {format_size(report.cached_bytes)} more in the cache, which MLFLOW_IPFS_CACHE_BYTES limits"
    print_result(fields, line, as_json=as_json)


def _collect_groups(store: ContentStore) -> dict[Group, list[CID]]:
    """Return the root CIDs of each group."""
    groups: dict[Group, list[CID]] = {}
    trees: set[str] = set()
    roots = list(store.roots())
    pinned = {root.cid for root in roots if root.kind == "pin"}
    for root in roots:
        if root.cid is None:
            trees.add(experiment_of(root.name))
        elif root.kind != "frozen" or root.cid not in pinned:  # else it belongs to a model version, whose pin counts
            groups.setdefault(_group_of(root, root.cid), []).append(root.cid)
    for tree in trees:
        location = MfsPath.parse(tree)
        entries = store.files.walk(location)
        groups.setdefault(Group("experiment", tree), []).extend(entry.cid for entry in entries)
    return groups


def _group_of(root: Root, cid: CID) -> Group:
    group = group_of(root)
    return Group("pin", f"{root.name} {cid}") if group.kind == "pin" else group  # each pin of an owner has its own size
