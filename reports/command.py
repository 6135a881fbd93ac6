"""The command ``mlflow-ipfs report``. Everything else is imported when it runs, because the command line loads this module."""

# ruff: noqa: PLC0415

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.errors import CommandError, ExitCode
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .data import Missing, ReportData

_MAX_MISSING_NAMED: Final = 5


@click.command(short_help="Write a report on runs, an experiment or a model.")
@click.option("--run", "run_ids", metavar="ID", multiple=True, help="A run; may be given several times.")
@click.option("--experiment", metavar="NAME", help="Runs of an experiment, by name or id.")
@click.option("--filter", "filter_string", metavar="TEXT", help="Runs that match MLflow's search filter.")
@click.option("--model", metavar="NAME[/VERSION]", help="Runs of a registered model: NAME, NAME/VERSION or NAME@ALIAS.")
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIRECTORY",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("mlflow-report"),
    show_default=True,
    help="Where to write; files of an earlier report are replaced.",
)
@click.option(
    "--formats",
    metavar="LIST",
    default="html",
    show_default=True,
    help="Formats with commas between them: html,svg,png,json,csv,txt",
)
@click.option(
    "--max-runs", type=click.IntRange(min=1), default=1000, show_default=True, help="Read the newest runs only."
)
@click.option("--log-to-run", is_flag=True, help="Log the report to its run as the artifact directory `report`.")
@click.option("--publish", "publishes", is_flag=True, help="Add the report to the store, and print its CID.")
@click.option("--tracking-uri", metavar="URI", help="MLflow  [default: MLflow's own setting]")
@json_option
@pass_cli_context
@click.pass_context
def report(  # noqa: PLR0913 - options of a command
    context: click.Context,
    cli_context: CliContext,
    /,
    *,
    run_ids: tuple[str, ...],
    experiment: str | None,
    filter_string: str | None,
    model: str | None,
    directory: Path,
    formats: str,
    max_runs: int,
    log_to_run: bool,
    publishes: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Write a report on runs: metrics, resources, latencies and lineage by CID.

    Name runs, an experiment, a model or a filter; a filter may be combined with an experiment. MLflow is only read, unless
    --log-to-run is given. The exit code is 1 if a part of the report could not be read; every format names that part.
    """
    with _libraries(), _progress() as progress:
        from mlflow_ipfs.binding.mlflow_compat import prepare_for_command

        from . import delivery, exporting
        from .collecting import collect

        names = exporting.read_formats(formats)
        exporting.check_directory(directory)
        prepare_for_command()
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        data = collect(
            run_ids=run_ids,
            experiment=experiment,
            filter_string=filter_string,
            model=model,
            tracking_uri=tracking_uri,
            max_runs=max_runs,
            progress=progress,
        )
        logged_run = delivery.find_only_run(data) if log_to_run else None
        files = exporting.export(data, directory, names)
    _print_files(files, directory, as_json=as_json)
    if logged_run is not None:
        delivery.log_to_run(logged_run, files, directory, tracking_uri)
        place = f"{delivery.ARTIFACT_DIRECTORY}/"
        print_result(
            {"run_id": logged_run, "artifacts": place}, f"logged to run {logged_run}: {place}", as_json=as_json
        )
    if publishes:
        with cli_context.open_store(create=True) as store:
            cid = delivery.publish(store, files, directory)
        print_result({"cid": cid}, f"published ipfs://{cid}", as_json=as_json)
    if not as_json:
        _print_summary(data)
    if data.missing:
        _print_missing(data.missing)
        context.exit(ExitCode.FAILED)


@contextmanager
def _libraries() -> Iterator[None]:
    """Raise an error that names the extra of this package if a library is not installed."""
    try:
        yield
    except ImportError as error:
        msg = f"a report needs a library that is not installed ({error}); run: pip install 'mlflow-ipfs[reports]'"
        raise CommandError(msg, ExitCode.FAILED, type(error).__name__) from error


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows how many runs of how many were read."""
    shown: list[Progress] = []
    before = 0

    def show(done: int, total: int) -> None:
        nonlocal before
        if not shown:
            shown.append(Progress("reading metrics", total, show=lambda count: format_count(count, "run")))
        shown[0].advance(done - before)
        before = done

    try:
        yield show
    finally:
        for progress in shown:
            progress.clear()


def _print_files(files: Sequence[Path], directory: Path, *, as_json: bool) -> None:
    """Print the files of the report, and how many files its directories have."""
    below: dict[Path, list[int]] = {}
    for file in files:
        size = file.stat().st_size
        if file.parent == directory or as_json:
            line = f"wrote {printable(str(file))}  {format_size(size)}"
            print_result({"path": str(file), "size_bytes": size}, line, as_json=as_json)
        else:
            below.setdefault(file.parent, []).append(size)
    for parent, sizes in below.items():
        click.echo(f"wrote {printable(str(parent))}  {format_count(len(sizes), 'file')}, {format_size(sum(sizes))}")


def _print_summary(data: ReportData) -> None:
    points = format_count(sum(run.point_count for run in data.runs), "point")
    click.echo(f"{printable(data.title)}: {format_count(len(data.runs), 'run')}, {points}")


def _print_missing(missing: Sequence[Missing]) -> None:
    for one in missing[:_MAX_MISSING_NAMED]:
        print_notice(printable(f"missing: {one.what}: {one.reason}"))
    if len(missing) > _MAX_MISSING_NAMED:
        print_notice(f"missing: {len(missing) - _MAX_MISSING_NAMED:,} more, which the report names")
