"""``du``: what takes the room?"""

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


@click.command(short_help="What takes the room, by experiment, model and pin.")
@json_option
@pass_cli_context
def du(cli_context: CliContext, *, as_json: bool) -> None:
    """Say how much of the store each experiment, registered model, ref and pin needs.

    The first size is of all blocks that it needs, the second of those that nothing else needs:
    what would become free without it. A block that several need counts for each of them.
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
            (kind, printable(name), format_size(usage.total_bytes), f"{format_size(usage.own_bytes)} of its own")
            for (kind, name), usage in found
        ]
        for line in align(rows, right={2, 3}):
            click.echo(line)
    fields = {"all_bytes": report.all_bytes, "unneeded_bytes": report.unneeded_bytes}
    line = f"{format_size(report.all_bytes)} in all, {format_size(report.unneeded_bytes)} that nothing needs"
    print_result(fields, line, as_json=as_json)


def _collect_groups(store: ContentStore) -> dict[Group, list[CID]]:
    """The roots of each experiment, model and so on."""
    groups: dict[Group, list[CID]] = {}
    trees: set[str] = set()
    roots = list(store.roots())
    pinned = {root.cid for root in roots if root.kind == "pin"}
    for root in roots:
        if root.cid is None:
            trees.add(experiment_of(root.name))
        elif root.kind != "frozen" or root.cid not in pinned:  # else it is a model version's, whose pin counts
            groups.setdefault(_group_of(root, root.cid), []).append(root.cid)
    for tree in trees:
        location = MfsPath.parse(tree)
        entries = store.files.walk(location)
        groups.setdefault(Group("experiment", tree), []).extend(entry.cid for entry in entries)
    return groups


def _group_of(root: Root, cid: CID) -> Group:
    group = group_of(root)
    return Group("pin", f"{root.name} {cid}") if group.kind == "pin" else group  # of an owner, each has its own size
