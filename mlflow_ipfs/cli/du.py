"""``du``: show how much of the store each experiment, model, ref and pin uses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.root_names import Group, experiment_of, group_of, tree_group
from mlflow_ipfs.cli.terminal import align, format_size, format_time, print_result, printable
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.pin_labels import find_label, read_labels
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import URL

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.kinds import Root
    from mlflow_ipfs.content.storage.maintenance import Usage
    from mlflow_ipfs.content.store import ContentStore

_NO_TITLE: Final = ("", None)


@click.command(short_help="Show the size of each experiment, model, ref and pin.")
@click.option(
    "--backend-store-uri",
    metavar="URI",
    help="MLflow's database, which has the names of experiments  [default: MLFLOW_BACKEND_STORE_URI, "
    "MLFLOW_TRACKING_URI, and the SQLite databases that use the store]",
)
@json_option
@pass_cli_context
def du(cli_context: CliContext, backend_store_uri: str | None, *, as_json: bool) -> None:
    """Show how much of the store each experiment, registered model, ref and pin uses.

    The first size counts all blocks that the item needs. The second size counts the blocks that no other item needs:
    the space that is freed when the item is deleted. A shared block counts for each item that needs it. A pin has the
    name that was added, and the time. If several databases use the store, each item shows its database, except what a
    server wrote: its names in the store do not contain the database.
    """
    with cli_context.open_store() as store:
        groups = _collect_groups(store)
        report = store.measure_usage(list(groups.values()))
        titles = _read_titles(store, groups, backend_store_uri)
        databases = _name_databases(store, groups)
    found = sorted(zip(groups, report.groups, strict=True), key=lambda pair: -pair[1].total_bytes)
    if as_json:
        for group, usage in found:
            title, added_at = titles.get(group, _NO_TITLE)
            sizes = {"total_bytes": usage.total_bytes, "own_bytes": usage.own_bytes}
            print_result(group._asdict() | sizes | {"title": title, "added_at": added_at}, "", as_json=True)
    else:
        for line in align(
            (
                (*_cells(group, usage, *titles.get(group, _NO_TITLE)), databases.get(group.registry_id, ""))
                for group, usage in found
            ),
            right={2, 3},
        ):
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


def _cells(group: Group, usage: Usage, title: str, added_at: int | None) -> tuple[str, ...]:
    name = printable(f"{title}  {group.name}" if title else group.name)
    sizes = format_size(usage.total_bytes), f"{format_size(usage.own_bytes)} exclusive"
    return group.kind, name, *sizes, "" if added_at is None else format_time(added_at)


def _name_databases(store: ContentStore, groups: Collection[Group]) -> dict[str, str]:
    """Return the location of each database by its registry id; empty if one database alone has content in the store."""
    found = {group.registry_id for group in groups} - {""}
    if len(found) < 2:
        return {}
    from mlflow_ipfs.binding.databases.claims import list_databases  # noqa: PLC0415 - SQLAlchemy loads slowly

    locations = list_databases(store.storage)
    names = {one: ", ".join(location.uri for location in locations.get(one, ())) for one in found}
    return {one: printable(f"in {name or f'a database with the registry id {one}'}") for one, name in names.items()}


def _read_titles(
    store: ContentStore, groups: Collection[Group], uri: str | None
) -> dict[Group, tuple[str, int | None]]:
    """Return a name for users of each experiment and pin that has one, and when a pin was added."""
    titles: dict[Group, tuple[str, int | None]] = {}
    labels = read_labels(store.storage.notes)
    for pin in store.pins.list():
        label = find_label(labels, pin)
        titles[Group("pin", f"{pin.owner} {pin.cid}")] = label.name, label.added_at
    trees = [group for group in groups if group.kind in {"experiment", "frozen"}]
    if trees:
        from mlflow_ipfs.binding.databases.experiment_names import read_experiment_names  # noqa: PLC0415 - SQLAlchemy loads slowly

        names = read_experiment_names(store.storage, _find_database(uri), must_read=bool(uri))
        titles |= {group: (names.find(group.name), None) for group in trees}
    return titles


def _find_database(uri: str | None) -> URL | None:
    """Return the database that the user or the environment names; None if the environment names none."""
    from mlflow_ipfs.binding.databases.named_database import find_database  # noqa: PLC0415 - SQLAlchemy loads slowly

    try:
        return find_database(uri, os.environ)
    except SettingsError:
        if uri:
            raise
        return None  # MLFLOW_TRACKING_URI may be the address of a server


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
        groups.setdefault(tree_group("experiment", tree), []).extend(entry.cid for entry in entries)
    return groups


def _group_of(root: Root, cid: CID) -> Group:
    group = group_of(root)
    return Group("pin", f"{root.name} {cid}") if group.kind == "pin" else group  # each pin of an owner has its own size
