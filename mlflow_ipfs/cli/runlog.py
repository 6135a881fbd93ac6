"""``runlog``: metrics that MLflow does not have yet."""

# ruff: noqa: PLC0415 - MLflow loads slowly

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context, shared_options
from mlflow_ipfs.cli.terminal import format_count, format_size, print_result, printable

if TYPE_CHECKING:
    from mlflow_ipfs.training.runlog.opening import SpoolStatus
    from mlflow_ipfs.training.runlog.spool import SpooledRun


@click.group(short_help="Show and send metrics that MLflow does not have yet.")
@shared_options
def runlog() -> None:
    """Show and send metrics that MLflow does not have yet.

    While MLflow cannot be reached, the callbacks and the metrics collector keep metrics in MLFLOW_IPFS_RUNLOG.
    """


@runlog.command(short_help="List runs with metrics that MLflow does not have yet.")
@json_option
@pass_cli_context
def ls(cli_context: CliContext, *, as_json: bool) -> None:
    """List the runs with metrics that MLflow does not have yet, and how many points they have."""
    from mlflow_ipfs.training.runlog.opening import list_run_logs

    for status in list_run_logs(cli_context.settings.runlog):
        print_result(_fields(status), _line(status), as_json=as_json)


@runlog.command(short_help="Send the metrics to MLflow.")
@click.argument("ids", nargs=-1, metavar="[ID]…")
@click.option(
    "--tracking-uri", metavar="URI", help="MLflow  [default: MLFLOW_TRACKING_URI, else the one of each run log]"
)
@json_option
@pass_cli_context
@click.pass_context
def sync(
    context: click.Context, cli_context: CliContext, ids: tuple[str, ...], tracking_uri: str | None, *, as_json: bool
) -> None:
    """Send metrics to MLflow, all or those of the run logs with the given IDs.

    What MLflow has already is not stored twice. A run that was started offline is created first. The exit code is 1 if
    something could not be sent. A run log for another MLflow, for example for a mistyped URI, is sent to --tracking-uri if
    its ID is given and its run was not created yet.
    """
    from mlflow_ipfs.binding.mlflow_compat import prepare_for_command
    from mlflow_ipfs.training.runlog.opening import sync_run_logs

    prepare_for_command()
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    found = failed = 0
    for status in sync_run_logs(cli_context.settings.runlog, uri, ids, may_move=tracking_uri is not None):
        found += 1
        failed += status.problem is not None
        print_result(_fields(status), _line(status, is_sent=status.problem is None), as_json=as_json)
    missing = len(ids) - found
    if missing > 0:
        msg = f"{format_count(missing, 'run log')} of {len(ids)} not found; `mlflow-ipfs runlog ls` lists them"
        raise click.ClickException(msg)
    if failed:
        context.exit(1)


@runlog.command(short_help="Delete metrics without sending them.")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@json_option
@pass_cli_context
def rm(cli_context: CliContext, ids: tuple[str, ...], *, as_json: bool) -> None:
    """Delete the metrics of run logs without sending them, for example those of a deleted run."""
    from mlflow_ipfs.errors import NotFoundError, StoreBusyError
    from mlflow_ipfs.training.runlog.opening import list_run_logs

    known = {status.directory.name: status for status in list_run_logs(cli_context.settings.runlog)}
    for name in ids:
        if name not in known:
            msg = f"there is no run log {name} in {cli_context.settings.runlog}; `mlflow-ipfs runlog ls` lists them"
            raise NotFoundError(msg)
        if known[name].is_in_use:
            msg = (
                f"the run log {name} is in use by process {getattr(known[name].run, 'pid', '?')}; end the process first"
            )
            raise StoreBusyError(msg)
        shutil.rmtree(known[name].directory)
        print_result({"id": name, "points": known[name].points}, f"deleted {name}", as_json=as_json)


def _fields(status: SpoolStatus) -> dict[str, object]:
    run = status.run
    return {
        "id": status.directory.name,
        "run_id": run.run_id if run else None,
        "tracking_uri": run.tracking_uri if run else None,
        "experiment": run.experiment if run and not run.experiment_id else None,
        "experiment_id": run.experiment_id if run else None,
        "points": status.points,
        "size_bytes": status.size_bytes,
        "is_in_use": status.is_in_use,
        "problem": status.problem,
    }


def _where(run: SpooledRun) -> str:
    if run.run_id:
        return f"run {run.run_id}"
    return f"new run in experiment {run.experiment_id or repr(run.experiment)}"


def _line(status: SpoolStatus, *, is_sent: bool = False) -> str:
    run = status.run
    where = _where(run) if run else "unreadable"
    if status.is_in_use:
        state = "in use; its process sends it"
    elif is_sent:
        state = "sent"
    else:
        state = f"{format_count(status.points, 'point')} to send, {format_size(status.size_bytes)}"
    problem = f": {status.problem}" if status.problem else ""
    return printable(f"{status.directory.name}  {where}  {run.tracking_uri if run else ''}  {state}{problem}")
