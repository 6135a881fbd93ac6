"""``databases``: MLflow's databases that use the store, and what to do if one is a copy of another.

SQLAlchemy takes longer to import than most commands to run, so it waits until it is needed.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context, shared_options
from mlflow_ipfs.cli.terminal import format_count, note, print_result, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from mlflow_ipfs.binding.database_forks import ForkReport
    from mlflow_ipfs.binding.databases.database_locations import DatabaseLocation

    Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(short_help="MLflow's databases that use the store.")
@shared_options
def databases() -> None:
    """MLflow's databases that use the store.

    A database has a registry id, which pins and artifacts in the store carry. A copy of a database has the id of the
    original; until it is forked, nothing that either of them has is dropped.
    """


def _database_option(command: Command) -> Command:
    return click.option(
        "--backend-store-uri",
        metavar="URI",
        help="The database  [default: MLFLOW_BACKEND_STORE_URI, else MLFLOW_TRACKING_URI]",
    )(command)


@databases.command()
@json_option
@pass_cli_context
def ls(cli_context: CliContext, *, as_json: bool) -> None:
    """List every database that was seen with the store: its registry id, and where it was."""
    from mlflow_ipfs.binding.databases.claims import list_databases
    from mlflow_ipfs.binding.databases.database_locations import describe

    with cli_context.open_store() as store:
        found = list_databases(store.storage)
    for registry_id, locations in found.items():
        for location in locations:
            fields = {"registry_id": registry_id} | describe(location) | {"is_shared": len(locations) > 1}
            print_result(fields, _line(registry_id, location, is_shared=len(locations) > 1), as_json=as_json)


def _line(registry_id: str, location: DatabaseLocation, *, is_shared: bool) -> str:
    since = datetime.fromtimestamp(location.seen_at, UTC).isoformat(timespec="seconds")
    where = f" on {location.host}" if location.host else ""
    shared = "  (one of several with this id)" if is_shared else ""
    return printable(f"{registry_id}  {location.uri}{where}, since {since}{shared}")


@databases.command()
@_database_option
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="What the server of the copy has had as such  [default: MLFLOW_ARTIFACTS_DESTINATION, else looked for]",
)
@json_option
@pass_cli_context
def fork(
    cli_context: CliContext, backend_store_uri: str | None, artifacts_destination: str | None, *, as_json: bool
) -> None:
    """Give a copied database a registry id, pins, frozen paths and artifact trees of its own.

    Afterwards the copy and the original delete independently of each other. No bytes are copied. Stop the programs
    that use the copy first; the original may go on. A fork that was broken off can be run again.
    """
    from mlflow_ipfs.backup.database_copies import find_database
    from mlflow_ipfs.binding.database_forks import fork_database

    url = find_database(backend_store_uri, os.environ)
    destination = artifacts_destination or os.environ.get("MLFLOW_ARTIFACTS_DESTINATION") or None
    with cli_context.open_store() as store:
        report = fork_database(url, store, destination)
    print_result(asdict(report), "\n".join(_fork_lines(report)), as_json=as_json)
    for name in report.missing:
        note(f"the content of {printable(name)} is not in the store, so this version has no pin")
    if not report.others:
        note(
            f"no other database with the id {report.former_id} was seen with this store. What that id keeps stays, for "
            "the original may be in use"
        )
    if report.destination is not None:
        note(f"start the server of this database with --artifacts-destination {report.destination} from now on")


def _fork_lines(report: ForkReport) -> list[str]:
    return [
        f"registry id  {report.registry_id}, formerly {report.former_id}",
        f"claimed      {format_count(report.versions, 'model version')}, {format_count(report.files, 'file')}",
        f"changed      {format_count(report.locations, 'location')} in the database",
    ]


@databases.command()
@_database_option
@json_option
@pass_cli_context
def moved(cli_context: CliContext, backend_store_uri: str | None, *, as_json: bool) -> None:
    """Say that a database was moved to where it is now, and is not used in any other place.

    The store forgets the other places with the same registry id, which it may not be able to look at. If one of them
    is used all the same, what it deletes is lost for both.
    """
    from mlflow_ipfs.backup.database_copies import find_database
    from mlflow_ipfs.binding.databases.database_locations import describe
    from mlflow_ipfs.binding.databases.sightings import record_move

    url = find_database(backend_store_uri, os.environ)
    with cli_context.open_store() as store:
        sighting = record_move(store.storage, url)
    lines = [f"forgotten  {printable(location.uri)}" for location in sighting.others] or ["nothing to forget"]
    fields = {"registry_id": sighting.registry_id, "forgotten": [describe(location) for location in sighting.others]}
    print_result(fields, "\n".join(lines), as_json=as_json)
