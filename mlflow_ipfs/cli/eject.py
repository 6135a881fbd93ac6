"""``eject``: write the artifacts of MLflow's database as plain files.

SQLAlchemy takes longer to import than most commands take to run, so modules that need it are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.binding.locations import MFS, scheme_of
from mlflow_ipfs.cli.next_steps import plain_server_command
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable
from mlflow_ipfs.content.system.access import owner_of
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL

    from mlflow_ipfs.moving.ejecting import EjectOptions, EjectReport


@click.command(short_help="Write all artifacts as plain files, for MLflow without this package.")
@click.option("--backend-store-uri", metavar="URI", required=True, help="MLflow's database.")
@click.option(
    "--artifacts",
    "directory",
    metavar="DIR",
    required=True,
    type=click.Path(readable=False, file_okay=False, path_type=Path),
    help="The directory to write to.",
)
@click.option(
    "--for-server",
    is_flag=True,
    help="Write mlflow-artifacts:/ locations, for clients on other machines of a server with DIR as its destination.",
)
@click.option("--include-running", is_flag=True, help="Eject runs that have not ended, too.")
@click.option("--dry-run", is_flag=True, help="Count what would be written, and list what would be left.")
@click.option(
    "--artifacts-destination",
    metavar="URI",
    help="The value with which the server ran so far  [default: MLFLOW_ARTIFACTS_DESTINATION, else detected]",
)
@json_option
@pass_cli_context
def eject(
    cli_context: CliContext,
    backend_store_uri: str,
    directory: Path,
    artifacts_destination: str | None,
    *,
    for_server: bool,
    include_running: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write all artifacts of MLflow's database as plain files below DIR, and change the database to name them.

    Afterwards an MLflow server without this package serves every run, logged model, trace and model version. Stop the
    programs that log to the database first, or run the command again when they have ended: what was ejected is compared,
    not written again. The same is true after an interruption.

    Locations mfs://… become paths below DIR. Locations mlflow-artifacts:/… stay behind a server, whose destination is
    DIR then. A model version keeps the files that it was frozen to: it shares those of its run if they are equal,
    and gets a directory `frozen/<cid>` beside them if not. From then on nothing protects them from being overwritten.
    The tags ipfs.cid and ipfs.size_bytes stay: they say which content was registered.

    Every file is verified while it is written. A file that exists in DIR is never replaced. The store and the database's
    registry id are not changed, so `mlflow-ipfs adopt` takes everything in again without new copies.

    The exit code is 1 if anything was left, which is listed.
    """
    from mlflow_ipfs.binding.databases.named_database import find_database
    from mlflow_ipfs.moving.ejecting import EjectOptions, eject_artifacts

    url = find_database(backend_store_uri, os.environ)
    options = EjectOptions(
        directory=Path(os.path.normpath(directory.absolute())),
        for_server=for_server,
        include_running=include_running,
        destination=artifacts_destination or _destination_in_the_store(os.environ),
        dry_run=dry_run,
    )
    with cli_context.open_store() as store, Progress("ejecting") as progress:
        report = eject_artifacts(url, store, options, progress=progress.advance)
    for label, reason in report.left.items():
        line = printable(f"{'left':<11}  {label}: {reason}")
        print_result({"left": label, "reason": reason}, line, as_json=as_json)
    fields = asdict(report) | {"left": len(report.left), "directory": str(options.directory), "dry_run": dry_run}
    print_result(fields, "\n".join(_lines(report, dry_run=dry_run)), as_json=as_json)
    for notice in _notices(report, url, options):
        print_notice(printable(notice))
    if report.left:
        msg = f"{format_count(len(report.left), 'entry', 'entries')} of the database left as listed; everything else is ejected"
        raise MlflowIpfsError(f"dry run: {len(report.left):,} would be left as listed" if dry_run else msg)


def _destination_in_the_store(environ: Mapping[str, str]) -> str | None:
    """Return the server's destination from the environment; None if it is not in the store: then the server is plain."""
    destination = environ.get("MLFLOW_ARTIFACTS_DESTINATION", "")
    return destination if scheme_of(destination) == MFS else None


def _lines(report: EjectReport, *, dry_run: bool) -> list[str]:
    counts = [format_count(count, kind) for kind, count in sorted(report.counts.items())]
    written = f"{format_count(report.files, 'file')}, {format_size(report.size_bytes)}"
    existing = f"; {report.equal_files:,} exist already" if report.equal_files else ""
    first = "would eject" if dry_run else "ejected"
    lines = [f"{first:<11}  {', '.join(counts) or 'nothing'}", f"{'files':<11}  {written}{existing}"]
    if not dry_run:
        lines.append(f"{'changed':<11}  {format_count(report.locations, 'location')} in the database")
    return lines


def _notices(report: EjectReport, url: URL, options: EjectOptions) -> list[str]:
    directory = shlex.quote(str(options.directory))
    notices = []
    if report.elsewhere:
        count = format_count(report.elsewhere, "row")
        notices.append(
            f"the artifacts of {count} of the database were outside the store already and stay where they are"
        )
    if report.datasets:
        count = format_count(report.datasets, "dataset")
        notices.append(f"the source of {count} stays ipfs://<cid>; `mlflow-ipfs get <cid>` writes it to disk")
    if options.dry_run:
        return notices
    destination = f" --artifacts-destination {directory}" if report.needs_destination else ""
    notices.append(f"start the server with `{plain_server_command(url)}{destination}`")
    if report.needs_destination:
        notices.append(
            f"set MLFLOW_ARTIFACTS_DESTINATION={directory} for `mlflow-ipfs doctor`, `backup` and `adopt`, too: the database "
            "does not say where the server's files are, and the store still has them"
        )
    if report.left:
        notices.append("keep the store: it alone has the files of what is left")
    else:
        notices.append("the store was not changed and still has everything; remove it when you do not need it any more")
    if os.geteuid() == 0 and options.directory.exists():
        owner = owner_of(options.directory)
        notices.append(
            f"the new files belong to root and {directory} to {owner}; if another user runs the server, `chown -R` them"
        )
    return notices
