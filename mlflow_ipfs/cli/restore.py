"""``restore``: restore a backup into an empty location."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from mlflow_ipfs.binding.redaction import show_url
from mlflow_ipfs.cli.backup import database_options, left_out_lines, parse_database, print_report, report_lines
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, print_notice, printable
from mlflow_ipfs.content.storage.local.reading.inspection import count_contents
from mlflow_ipfs.content.system.access import owner_of
from mlflow_ipfs.errors import IntegrityError


@click.command(short_help="Restore a backup into an empty location.")
@click.argument("source", metavar="SRC", type=click.Path(readable=False, path_type=Path))
@database_options
@json_option
@pass_cli_context
def restore(
    cli_context: CliContext,
    source: Path,
    backend_store_uri: str | None,
    *,
    store_only: bool,
    no_verify: bool,
    as_json: bool,
) -> None:
    """Restore a backup: the store to MLFLOW_IPFS_STORE (or --store), and MLflow's database.

    Nothing is overwritten: neither the store nor the database may exist. To resume an interrupted restore, run the same
    command again.

    If root runs the command, the store and the database belong to the owners of the directories that contain them.
    """
    from mlflow_ipfs.backup.backing_up import restore_backup  # noqa: PLC0415 - imports SQLAlchemy, which takes long

    database = parse_database(backend_store_uri, store_only=store_only)
    target = cli_context.settings.store
    with Progress("restoring") as progress:
        done = restore_backup(source, target, database, verify=not no_verify, progress=progress.advance)
    manifest, report, has_new_database = done
    contents = count_contents(target)
    uri = "" if database is None else printable(show_url(database))
    where = f" and {uri}" if has_new_database else ""
    lines = [f"restored   {printable(str(target))}{where}, as of {printable(str(manifest.taken_at))}"]
    if report is not None:
        lines += report_lines(report, contents, manifest.database if has_new_database else None)
    if manifest.database is not None and not store_only:
        lines += left_out_lines(manifest)
    if uri and not has_new_database:
        lines.append(f"database   {uri} already exists with the same content")
    owner = owner_of(target)
    print_report(manifest, report, [*lines, f"owner      {owner}"], as_json=as_json, contents=contents, owner=owner)
    if os.geteuid() == 0 and target.stat().st_uid == 0:
        path = shlex.quote(str(target))
        print_notice(f"{path} belongs to root; if another user runs the server, first run `chown -R USER:GROUP {path}`")
    if report is not None and report.problems:
        msg = f"{format_count(len(report.problems), 'problem')} in the backup; everything else is restored"
        raise IntegrityError(msg)
