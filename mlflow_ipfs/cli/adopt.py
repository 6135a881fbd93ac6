"""``adopt``: take an existing MLflow into the store.

MLflow takes longer to import than most commands take to run, so modules that need it are imported late.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mlflow_ipfs.cli.errors import CommandError, ExitCode
from mlflow_ipfs.cli.next_steps import convert_command, direct_setting, server_command
from mlflow_ipfs.cli.options import CliContext, has_store, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable
from mlflow_ipfs.config import PREFIX
from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    from mlflow_ipfs.moving.adopting import AdoptionOptions
    from mlflow_ipfs.moving.adoption_report import AdoptionReport, ExperimentReport, LeftOut

MAX_LEFT_OUT_SHOWN: Final = 20


@click.command(short_help="Take an existing MLflow into the store.")
@click.option("--backend-store-uri", metavar="URI", required=True, help="MLflow's database.")
@click.option(
    "--artifacts",
    metavar="DIRECTORY-OR-URI",
    help="Where the server keeps the files of mlflow-artifacts:  [default: MLFLOW_ARTIFACTS_DESTINATION, else ./mlartifacts]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be taken in. Nothing is changed or created.")
@click.option("--remove-source", is_flag=True, help="Remove the old files that are equal in the store.")
@click.option(
    "--include-running",
    is_flag=True,
    help="Also take in runs that have not ended. What their programs still write to the old place, the next adopt takes in.",
)
@json_option
@pass_cli_context
def adopt(
    cli_context: CliContext,
    backend_store_uri: str,
    artifacts: str | None,
    *,
    dry_run: bool,
    remove_source: bool,
    include_running: bool,
    as_json: bool,
) -> None:
    """Take the artifacts of an existing MLflow into the store, and freeze its model versions.

    Every file that the database names is copied into the store, from mlruns/, from a server's ./mlartifacts, from
    s3:// or from any other place that MLflow can read, and is compared byte for byte. Then the locations in the database
    change to mfs://. Locations mlflow-artifacts: stay; the command prints how to start the server.

    The old files stay until --remove-source, also in a later call. It compares every file with the store again, and
    removes only files that are equal. No other database may name them.

    MLflow can stay in use meanwhile. An interrupted adoption can be run again, and takes in only what is missing. The exit
    code is 1 if something was left out, which is listed with the reason.
    """
    from mlflow_ipfs.moving.adopting import AdoptionOptions, adopt_database, check_adoption

    url = _find_adoptable(backend_store_uri)
    if dry_run and remove_source:
        msg = "--dry-run and --remove-source cannot be used together"
        raise click.UsageError(msg)
    options = AdoptionOptions(artifacts, include_running, remove_source, os.environ)
    if dry_run:
        report = _preview(cli_context, url, options)
        for experiment in report.experiments:
            _print_experiment(experiment, as_json=as_json)
    else:
        if not has_store(cli_context.settings):
            check_adoption(url, cli_context.settings, options)
        with cli_context.open_store(create=True) as store, _using_database(url, cli_context.settings.store):
            report = adopt_database(url, store, cli_context.settings, options, _Watcher(as_json=as_json))
    _print_summary(report, url, dry_run=dry_run, as_json=as_json)
    kept = report.removal.kept if report.removal is not None else []
    problems = [f"{format_count(len(report.left_out), 'item')} left out"] if report.left_out else []
    problems += [f"old files of {format_count(len(kept), 'item')} not removed"] if kept else []
    if problems:
        msg = f"{'; '.join(problems)}, as listed above"
        raise CommandError(msg, ExitCode.FAILED, "LeftOut")


def _find_adoptable(uri: str) -> URL:
    """Return the database that an option names.

    Raises:
        SettingsError: the option names a directory with MLflow's file store, or something else that is not a database.
    """
    from mlflow_ipfs.binding.databases.named_database import find_database

    if "://" not in uri and Path(uri).is_file():
        msg = f"{uri!r} is a file; if it is a SQLite database, write sqlite:///{uri}"
        raise SettingsError(msg)
    if uri.startswith("file:") or "://" not in uri:
        msg = (
            f"{uri!r} is a directory of MLflow's file store, which MLflow does not develop any more; move it into a "
            "database first: mlflow migrate-filestore --source DIRECTORY --target sqlite:///mlflow.db"
        )
        raise SettingsError(msg)
    if not uri.removeprefix("ipfs+").startswith(("sqlite:", "postgresql:", "postgresql+")):
        msg = (
            f"only a SQLite or PostgreSQL database can be adopted, not {uri.partition(':')[0]}:; name the database itself "
            "with --backend-store-uri, as its server does"
        )
        raise SettingsError(msg)
    return find_database(uri, os.environ)


@contextmanager
def _using_database(url: URL, store: Path) -> Iterator[None]:
    """Let MLflow's client in this process use the database, and its plugins the store that the command line names."""
    from mlflow_ipfs.binding import mlflow_compat
    from mlflow_ipfs.binding.databases.connections import PREFIX as PLUGIN

    variable = f"{PREFIX}STORE"
    former = os.environ.get(variable)
    os.environ[variable] = f"local:{store}"
    stock = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    try:
        with mlflow_compat.using_database(f"{PLUGIN}{stock}"):
            yield
    finally:
        os.environ.pop(variable)
        if former is not None:
            os.environ[variable] = former


def _preview(cli_context: CliContext, url: URL, options: AdoptionOptions) -> AdoptionReport:
    from mlflow_ipfs.moving.adopting import preview_adoption

    with ExitStack() as stack:
        exists = has_store(cli_context.settings)
        store = stack.enter_context(cli_context.open_store()) if exists else None
        return preview_adoption(url, store, cli_context.settings, options)


class _Watcher:
    """Shows the progress of an adoption on the terminal, and prints each experiment when it is finished."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    @contextmanager
    def importing(self, name: str) -> Iterator[Callable[[int], None]]:
        with Progress(f"adopting {printable(name)}") as progress:
            yield progress.advance

    @contextmanager
    def removing(self) -> Iterator[Callable[[int], None]]:
        with Progress("comparing old files") as progress:
            yield progress.advance

    def finished(self, experiment: ExperimentReport) -> None:
        _print_experiment(experiment, as_json=self._as_json)


def _print_experiment(experiment: ExperimentReport, *, as_json: bool) -> None:
    """Print what was taken in of one experiment, and what was left out. Print nothing if it has nothing to take in."""
    if not experiment.rows and not experiment.left_out:
        return
    fields = asdict(experiment) | {"rows": dict(experiment.rows)}
    lines = [f"experiment  {printable(experiment.name)}: {_contents(experiment)}"] if experiment.rows else []
    lines += [_left_out_line(one) for one in experiment.left_out[:MAX_LEFT_OUT_SHOWN]]
    if len(experiment.left_out) > MAX_LEFT_OUT_SHOWN:
        lines.append(
            f"left out    {len(experiment.left_out) - MAX_LEFT_OUT_SHOWN:,} more of this experiment; see --json"
        )
    print_result({"experiment": fields}, "\n".join(lines), as_json=as_json)


def _contents(experiment: ExperimentReport) -> str:
    rows = ", ".join(format_count(number, kind) for kind, number in experiment.rows.items())
    files = f"{format_count(experiment.files, 'file')}, {format_size(experiment.size_bytes)}"
    places = f" from {printable(', '.join(experiment.places))}" if experiment.places else ""
    return f"{rows}; {files}{places}"


def _left_out_line(one: LeftOut) -> str:
    return printable(f"left out    {one.kind} {one.name}: {one.reason}")


def _print_summary(report: AdoptionReport, url: URL, *, dry_run: bool, as_json: bool) -> None:
    """Print the totals, the model versions that were left out, and what to do next."""
    totals = _totals(report)
    versions = report.versions
    for name, reason in versions.left_out:
        record = {"kind": "model version", "name": name, "reason": reason}
        print_result({"left_out": record}, printable(f"left out    model version {name}: {reason}"), as_json=as_json)
    size = f"{format_count(totals['files'], 'file')}, {format_size(totals['size_bytes'])}"
    new = "" if dry_run else f", {format_size(totals['new_bytes'])} new in the store"
    verb = "to take in" if dry_run else "taken in"
    lines = [
        f"{verb:<10}  {size}{new}",
        f"versions    {versions.frozen:,} {'to freeze' if dry_run else 'frozen'}"
        + (f", {format_count(versions.prompts, 'prompt')} tagged" if versions.prompts else ""),
    ]
    if totals["unchanged"]:
        lines.append(f"unchanged   {totals['unchanged']:,}, taken in earlier")
    removal = report.removal
    if removal is not None:
        lines += [printable(f"kept        {one.kind} {one.name}: {one.reason}") for one in removal.kept]
        lines.append(f"removed     {format_count(removal.files, 'old file')}, {format_size(removal.size_bytes)}")
    fields: dict[str, Any] = totals | {
        "versions": versions.frozen,
        "prompts": versions.prompts,
        "left_out": len(report.left_out),
        "unfinished": report.unfinished,
        "destination": str(report.destination) if report.destination is not None else None,
        "dry_run": dry_run,
        "removal": asdict(removal) if removal is not None else None,
    }
    print_result(fields, "\n".join(lines), as_json=as_json)
    if totals["empty_directories"]:
        count = format_count(totals["empty_directories"], "empty directory")
        print_notice(f"left out {count}: the store keeps only files")
    if report.unfinished:
        count = format_count(report.unfinished, "entry", "entries")
        print_notice(
            f"{count} of the database {'has' if report.unfinished == 1 else 'have'} not ended: what a program or the old server "
            "still writes to the former place is taken in by the next `adopt`; run it again when they have stopped"
        )
    if report.destination is not None and not totals["files"] and not totals["unchanged"]:
        print_notice(
            "no file was found behind the server's locations; if the server keeps its files elsewhere, name the place with "
            "--artifacts"
        )
    if not dry_run:
        for step in _next_steps(report, url):
            print_notice(printable(step))


def _totals(report: AdoptionReport) -> dict[str, int]:
    names = ("files", "size_bytes", "new_bytes", "empty_directories", "unchanged")
    return {name: sum(getattr(one, name) or 0 for one in report.experiments) for name in names}


def _next_steps(report: AdoptionReport, url: URL) -> list[str]:
    """Return how to use the database from now on."""
    convert = f"to serve them to clients without mlflow-ipfs, first run `{convert_command(url)}`"
    if report.destination is not None:
        steps = [f"start the server from now on with `{server_command(url, str(report.destination))}`"]
        return [*steps, f"some artifacts were logged without a server; {convert}"] if report.has_direct else steps
    needed = f"from now on, MLflow needs mlflow-ipfs to read these artifacts: `export {direct_setting(url)}`"
    return [needed, convert]
