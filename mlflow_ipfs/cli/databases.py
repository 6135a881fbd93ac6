"""``databases``: list MLflow's databases that use the store, and separate copies of a database.

SQLAlchemy takes longer to import than most commands take to run, so modules that need it are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

import click

from mlflow_ipfs.cli.next_steps import direct_setting, server_command
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context, shared_options
from mlflow_ipfs.cli.terminal import format_count, format_size, print_notice, print_result, printable
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from sqlalchemy import URL

    from mlflow_ipfs.binding.database_forks import ForkReport
    from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation
    from mlflow_ipfs.content.storage.maintenance import Usage

    Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(short_help="List and separate the MLflow databases that use the store.")
@shared_options
def databases() -> None:
    """List the MLflow databases that use the store, and separate copies of a database.

    Each database has a registry id, which is part of the names of its pins and artifacts in the store. A copy of a
    database has the same registry id as the original. Until the copy is forked, gc removes no content of either.
    """


def _database_option(command: Command) -> Command:
    return click.option(
        "--backend-store-uri",
        metavar="URI",
        required=True,  # without a default: the settings of a shell name the original, and the copy is meant
        help="The database that was copied or moved.",
    )(command)


@databases.command(short_help="List the databases that used the store.")
@json_option
@pass_cli_context
def ls(cli_context: CliContext, *, as_json: bool) -> None:
    """List every database that used the store: its registry id, its location, its latest use and its size.

    The first size counts all blocks that its model versions and files need; the second one the blocks that nothing else
    in the list needs. The store does not record to which database the files behind a server belong. They have a line of
    their own, and the sizes of the databases are then the least that each one needs.
    """
    from mlflow_ipfs.binding.databases.claims import list_databases
    from mlflow_ipfs.binding.databases.database_content import find_content, find_unclaimed
    from mlflow_ipfs.binding.databases.database_locations import describe

    with cli_context.open_store() as store:
        found = list_databases(store.storage)
        content = {registry_id: find_content(store, registry_id) for registry_id in found}
        unclaimed = find_unclaimed(store)
        usage = store.measure_usage([one.cids(store) for one in content.values()] + list(unclaimed.values()))
    sizes = dict(zip([*found, *unclaimed], usage.groups, strict=True))
    for registry_id, locations in found.items():
        counts = {"model_versions": len(content[registry_id].pins), "files": content[registry_id].files}
        for location in locations:
            fields = {"registry_id": registry_id} | describe(location) | {"is_shared": len(locations) > 1}
            line = _line(registry_id, location, _sizes(sizes[registry_id], is_least=bool(unclaimed)))
            shared = "  (one of several with this registry id)" if len(locations) > 1 else ""
            is_least = {"is_least": bool(unclaimed)}
            print_result(fields | counts | is_least | asdict(sizes[registry_id]), line + shared, as_json=as_json)
    for name, cids in unclaimed.items():
        fields = {"registry_id": None, "uri": name, "files": len(cids)} | asdict(sizes[name])
        files = format_count(len(cids), "file")
        line = f"{name}  {files} behind a server, of an unknown database  {_sizes(sizes[name], is_least=False)}"
        print_result(fields, printable(line), as_json=as_json)


def _line(registry_id: str, location: DatabaseLocation, sizes: str) -> str:
    used = datetime.fromtimestamp(location.used_at or location.seen_at, UTC).isoformat(timespec="minutes")
    where = f" on {location.host}" if location.host else ""
    return printable(f"{registry_id}  {location.uri}{where}  used {used}  {sizes}")


def _sizes(usage: Usage, *, is_least: bool) -> str:
    at_least = "at least " if is_least else ""
    return f"{at_least}{format_size(usage.total_bytes)}, {at_least}{format_size(usage.own_bytes)} exclusive"


@databases.command(short_help="Drop what only a database that no longer exists named.")
@click.argument("registry_id")
@click.option(
    "--artifacts-destination", "destinations", multiple=True, metavar="mfs://ROOT[/PATH]",
    help="Also drop this tree, which only the server of the database used. Can be repeated.",
)  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be dropped.")
@click.option("--even-if-in-use", is_flag=True, help="Drop even if the store cannot see that the database is gone.")
@json_option
@pass_cli_context
def drop(
    cli_context: CliContext,
    registry_id: str,
    destinations: tuple[str, ...],
    *,
    dry_run: bool,
    even_if_in_use: bool,
    as_json: bool,
) -> None:
    """Drop the model versions and files in the store that belong to a database that no longer exists.

    REGISTRY_ID is the first column of `mlflow-ipfs databases ls`. The store drops nothing while the database may still be
    in use. The next gc frees the space of what nothing else needs.
    """
    from mlflow_ipfs.binding.databases.database_content import drop_content, find_content
    from mlflow_ipfs.binding.locations import parse_mfs

    trees = tuple(map(parse_mfs, destinations))
    with cli_context.open_store() as store:
        if dry_run:
            content = find_content(store, registry_id, trees)
        else:
            content = drop_content(store, registry_id, trees, even_if_in_use=even_if_in_use)
    fields = {"model_versions": len(content.pins), "frozen_paths": len(content.frozen), "files": content.files}
    counts = (("model version", len(content.pins)), ("frozen path", len(content.frozen)), ("file", content.files))
    text = ", ".join(format_count(count, noun) for noun, count in counts)
    later = "" if dry_run else "; `mlflow-ipfs gc` frees the space after its grace period"
    print_result(fields, f"{'would drop' if dry_run else 'dropped'} {text}{later}", as_json=as_json)


@databases.command(short_help="Give a copied database its own registry id.")
@_database_option
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="The value with which the server of the copy ran  [default: MLFLOW_ARTIFACTS_DESTINATION, else detected]",
)
@click.option(
    "--even-if-unshared", is_flag=True, help="Fork even if the store has seen no other database with this registry id."
)
@json_option
@pass_cli_context
def fork(
    cli_context: CliContext,
    backend_store_uri: str,
    artifacts_destination: str | None,
    *,
    even_if_unshared: bool,
    as_json: bool,
) -> None:
    """Give a copied database its own registry id, pins, frozen paths and artifact trees.

    Afterwards, deletions in the copy do not affect the original, nor the reverse. No content is copied.

    Stop all programs that use the copy before you run this command; the original can stay in use. An interrupted fork
    can be run again.
    """
    from mlflow_ipfs.binding.database_forks import fork_database
    from mlflow_ipfs.binding.databases.named_database import find_database

    url = find_database(backend_store_uri, os.environ)
    destination = artifacts_destination or os.environ.get("MLFLOW_ARTIFACTS_DESTINATION") or None
    with cli_context.open_store() as store:
        report = fork_database(url, store, destination, even_if_unshared=even_if_unshared)
    print_result(asdict(report), "\n".join(_fork_lines(report)), as_json=as_json)
    for name in report.missing:
        print_notice(f"{printable(name)} was not pinned, because its content is not in the store")
    if not report.others:
        print_notice(
            f"no other database with the registry id {report.former_id} has used this store; the content of that id is "
            "kept, because the original may still be in use"
        )
    if report.destination is not None:
        print_notice(
            f"from now on, start the server of this database with --artifacts-destination {report.destination}"
        )


def _fork_lines(report: ForkReport) -> list[str]:
    return [
        f"registry id  {report.registry_id}, formerly {report.former_id}",
        f"claimed      {format_count(report.versions, 'model version')}, {format_count(report.files, 'file')}",
        f"changed      {format_count(report.locations, 'location')} in the database",
    ]


@databases.command(short_help="Declare that a database has moved.")
@_database_option
@json_option
@pass_cli_context
def moved(cli_context: CliContext, backend_store_uri: str, *, as_json: bool) -> None:
    """Declare that a database has moved and is used only at its present location.

    The store then ignores all other recorded locations with the same registry id, because it may not be able to check
    them. Caution: if a database at one of them is still used, its deletions also remove content of this database.
    """
    from mlflow_ipfs.binding.databases.database_locations import describe
    from mlflow_ipfs.binding.databases.named_database import find_database
    from mlflow_ipfs.binding.databases.sightings import record_move

    url = find_database(backend_store_uri, os.environ)
    with cli_context.open_store() as store:
        sighting = record_move(store.storage, url)
    lines = [f"forgotten  {printable(location.uri)}" for location in sighting.others] or ["nothing to forget"]
    fields = {"registry_id": sighting.registry_id, "forgotten": [describe(location) for location in sighting.others]}
    print_result(fields, "\n".join(lines), as_json=as_json)


@databases.command(short_help="Convert locations between mfs:// and mlflow-artifacts:/.")
@click.option("--backend-store-uri", metavar="URI", required=True, help="MLflow's database.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["server", "direct"]),
    required=True,
    help="server: mlflow-artifacts:/, which clients without this package read. direct: mfs://, without a server.",
)
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="The destination of the server  [default: MLFLOW_ARTIFACTS_DESTINATION, else detected]",
)
@click.option("--dry-run", is_flag=True, help="Count the locations that would be changed.")
@json_option
@pass_cli_context
def convert(
    cli_context: CliContext,
    backend_store_uri: str,
    target: Literal["server", "direct"],
    artifacts_destination: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Convert the locations of a database between mfs:// and mlflow-artifacts:/.

    Without a server, MLFLOW_TRACKING_URI=ipfs+sqlite:///… writes mfs:// locations, which a client without this package
    cannot read. After `convert --to server` the server that the command prints serves them to every client.

    No file is copied, and frozen versions stay frozen. Programs that log to a run meanwhile are not disturbed. The exit
    code is 1 if a location was left, which is listed.

    MLflow's basic-auth derives permissions from the experiment's number at the start of a path. For a server that uses
    it, name the destination that contains the experiments: mfs://mlflow/<registry id>.
    """
    from mlflow_ipfs.binding.databases.named_database import find_database
    from mlflow_ipfs.moving.converting import convert_locations

    url = find_database(backend_store_uri, os.environ)
    with cli_context.open_store() as store:
        report = convert_locations(
            url,
            store,
            target,
            destination=artifacts_destination or os.environ.get("MLFLOW_ARTIFACTS_DESTINATION") or None,
            default_root=cli_context.settings.root,
            dry_run=dry_run,
        )
    for uri, reason in report.left.items():
        print_result({"left": uri, "reason": reason}, printable(f"left     {uri}: {reason}"), as_json=as_json)
    verb = "would change" if dry_run else "changed"
    line = f"{verb}  {format_count(report.locations, 'location')} in the database"
    print_result(asdict(report) | {"left": len(report.left), "dry_run": dry_run}, line, as_json=as_json)
    if report.unlistable:
        print_notice(
            f"{format_count(len(report.unlistable), 'file')} with '#' or '?' in the name, for example "
            f"{printable(report.unlistable[0])}: through a server, MLflow's clients refuse to list the directory of such a "
            "file, and so do not download it. Rename the file, or read it without a server"
        )
    if not dry_run:
        print_notice(printable(_next_step(url, target, report.destination)))
        if target == "server" and report.destination != str(cli_context.settings.root):
            print_notice(f"clients that go on without the server need MLFLOW_IPFS_ROOT={report.destination}")
    if report.left:
        msg = f"{format_count(len(report.left), 'location')} left as listed"
        raise MlflowIpfsError(msg)


def _next_step(url: URL, target: str, destination: str) -> str:
    if target == "direct":
        return f"clients use it without a server with `export {direct_setting(url)}`"
    return f"start the server with `{server_command(url, destination)}`"
