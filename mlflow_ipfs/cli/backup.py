"""``backup``: copy MLflow's database and the store together, and the parts that ``restore`` shares.

SQLAlchemy takes longer to import than most commands take to run, so modules that need it are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_result, printable
from mlflow_ipfs.content.storage.local.reading.inspection import count_contents
from mlflow_ipfs.errors import IntegrityError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from sqlalchemy import URL

    from mlflow_ipfs.backup.backup_directory import Manifest
    from mlflow_ipfs.binding.artifacts.outside_artifacts import OutsideGroup
    from mlflow_ipfs.content.storage.local.backup import BackupReport
    from mlflow_ipfs.content.storage.local.reading.inspection import Contents

    Command = TypeVar("Command", bound=Callable[..., Any])


_NO_STORE: Final = (
    ", so mlflow-ipfs has nothing to back up. If MLflow uses a store, name it with --store, or set MLFLOW_IPFS_STORE as the "
    "server has it. Back up an MLflow that keeps its artifacts elsewhere by copying its database and its artifacts; "
    "`mlflow-ipfs adopt` takes them into a store"
)


def database_options(command: Command) -> Command:
    """Add the options that ``backup`` and ``restore`` share."""
    for option in (
        click.option("--no-verify", is_flag=True, help="Do not hash the copied data."),
        click.option("--store-only", is_flag=True, help="Omit MLflow's database."),
        click.option(
            "--backend-store-uri",
            metavar="URI",
            help="MLflow's database  [default: MLFLOW_BACKEND_STORE_URI, else MLFLOW_TRACKING_URI]",
        ),
    ):
        command = option(command)
    return command


def parse_database(uri: str | None, *, store_only: bool) -> URL | None:
    """Return the database that the options name; None for the store alone."""
    if store_only and uri:
        msg = "--store-only and --backend-store-uri cannot be used together"
        raise click.UsageError(msg)
    if store_only:
        return None
    from mlflow_ipfs.binding.databases.named_database import find_database

    try:
        return find_database(uri, os.environ)
    except SettingsError as error:
        msg = f"{error}, or leave it out with --store-only"
        raise SettingsError(msg) from None


@click.command(short_help="Back up MLflow's database and the store.")
@click.argument("destination", metavar="DEST", type=click.Path(readable=False, file_okay=False, path_type=Path))
@click.option(
    "--without-outside-artifacts",
    is_flag=True,
    help="Omit artifacts that the database names and the store does not contain.",
)
@database_options
@json_option
@pass_cli_context
def backup(
    cli_context: CliContext,
    destination: Path,
    backend_store_uri: str | None,
    *,
    store_only: bool,
    no_verify: bool,
    without_outside_artifacts: bool,
    as_json: bool,
) -> None:
    """Back up MLflow's database and the store, both as of one moment, to a directory.

    MLflow can stay in use meanwhile. If DEST contains an earlier backup, only new data is copied. The earlier backup
    stays valid until the new one is complete. The copied data is hashed. The exit code is 4 if the store itself has
    damaged content, which is listed.

    A backup does not contain artifacts outside the store (in mlruns/, in s3://, on another server). If the database
    names such artifacts, the command lists them and exits with 5 before it copies anything. Use
    --without-outside-artifacts to back up the rest.
    """
    from mlflow_ipfs.backup.backing_up import make_backup

    def accept_outside(groups: Sequence[OutsideGroup]) -> bool:
        for fields in map(asdict, groups if not without_outside_artifacts else ()):
            print_result({"outside": fields}, _outside_line("outside", fields), as_json=as_json)
        return without_outside_artifacts

    database = parse_database(backend_store_uri, store_only=store_only)
    with cli_context.open_store(if_missing=_NO_STORE) as store, Progress("backing up") as progress:
        manifest, report = make_backup(
            store,
            destination,
            database,
            verify=not no_verify,
            timeout_seconds=cli_context.settings.timeout_seconds,
            progress=progress.advance,
            accept_outside=accept_outside,
        )
    contents = count_contents(destination / "store")
    lines = [
        f"backed up  {printable(str(destination))}, as of {printable(str(manifest.taken_at))}",
        *report_lines(report, contents, manifest.database),
        *left_out_lines(manifest),
    ]
    print_report(manifest, report, lines, as_json=as_json, contents=contents)
    if report.problems:
        msg = f"{format_count(len(report.problems), 'problem')} found; everything else is backed up"
        raise IntegrityError(msg)


def report_lines(report: BackupReport, contents: Contents, database: str | None) -> list[str]:
    """Return the lines that summarize the copied data. Small content has no files of its own: the index contains it."""
    new = f"{format_count(report.copied_files, 'file')}, {format_size(report.copied_bytes)}"
    stored = f"{format_count(contents.counts['blocks'], 'block')}, {format_size(contents.stored_bytes)}"
    lines = [f"store      {stored}, in the index and {format_count(report.files, 'file')}; copied the index and {new}"]
    if database is not None:
        lines.append(f"database   {database}")
    hashed = format_count(report.hashed_blocks, "block") if report.hashed_blocks else "nothing"
    return [*lines, f"hashed     {hashed}"]


def left_out_lines(manifest: Manifest) -> list[str]:
    """Return a line for each group of artifacts that the backup does not contain."""
    return [_outside_line("left out", group) for group in manifest.outside_artifacts]


def _outside_line(label: str, group: Mapping[str, Any]) -> str:
    count = format_count(group["count"], group["kind"])
    examples = ", ".join(group["examples"])
    return printable(f"{label:<9}  {count} in {group['place']}, for example {examples}")


def print_report(
    manifest: Manifest,
    report: BackupReport | None,
    lines: list[str],
    *,
    as_json: bool,
    contents: Contents | None = None,
    owner: str | None = None,
) -> None:
    """Print the problems, then the result."""
    problems = report.problems if report is not None else ()
    for cid, reason in problems:
        print_result({"cid": str(cid), "reason": reason}, f"problem    {cid}\n           {reason}", as_json=as_json)
    copied = {} if report is None else {"copied_files": report.copied_files, "copied_bytes": report.copied_bytes}
    if contents is not None:
        copied |= {"blocks": contents.counts["blocks"], "stored_bytes": contents.stored_bytes}
    owned = {} if owner is None else {"owner": owner}
    fields = asdict(manifest) | owned | copied | {"hashed_blocks": report.hashed_blocks if report is not None else 0}
    print_result(fields | {"problems": len(problems)}, "\n".join(lines), as_json=as_json)
