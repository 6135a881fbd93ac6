"""``doctor``: check the installation, the settings and the store; with ``--rebuild``, make a new index."""

from __future__ import annotations

import click

from mlflow_ipfs.cli.doctor_checks import run_checks
from mlflow_ipfs.cli.doctor_findings import Finding, State
from mlflow_ipfs.cli.doctor_rebuild import rebuild
from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import format_count, print_result, printable
from mlflow_ipfs.errors import MlflowIpfsError


@click.command(short_help="Check the installation, the settings and the store.")
@click.option("--rebuild", "is_rebuild", is_flag=True, help="Make a new index if store.db is lost or damaged.")
@click.option("--backend-store-uri", metavar="URI", help="MLflow's database: also compare it with the store.")
@json_option
@pass_cli_context
@click.pass_context
def doctor(
    context: click.Context, cli_context: CliContext, *, is_rebuild: bool, backend_store_uri: str | None, as_json: bool
) -> None:
    """Check the installation, the settings and the store, and report problems.

    The exit code is 1 if there is a problem; lines that report one start with an exclamation mark.

    With --backend-store-uri, also list the model versions whose files can still change. These were registered without
    mlflow-ipfs, or while MLFLOW_IPFS_FREEZE was not `required`. Versions, runs and logged models whose content the
    store has lost, does not keep, or has without some blocks, are problems.

    With --rebuild, make a new index (store.db) instead. Every file of the store is read and hashed. Pins, refs and
    mfs:// files are recovered from the readable part of the old index and from its backups. Content that no recovered
    name needs is pinned for `recovered/<time>`, so that gc keeps it. No other program may use the store meanwhile. The
    old index is kept in quarantine/.
    """
    if is_rebuild and backend_store_uri:
        msg = "--rebuild and --backend-store-uri cannot be used together; run doctor once with each"
        raise click.UsageError(msg)
    if is_rebuild:
        rebuild(cli_context, as_json=as_json)
        return
    application = context.find_root().command
    own_commands = application.commands if isinstance(application, click.Group) else {}
    problems, previous = 0, ""
    for finding in run_checks(cli_context, own_commands, backend_store_uri):
        problems += finding.state is State.PROBLEM
        fields = {"topic": finding.topic, "state": str(finding.state), "text": finding.text} | finding.facts
        print_result(fields, _line(finding, previous), as_json=as_json)
        previous = finding.topic
    if problems:
        msg = f"{format_count(problems, 'problem')} found"
        raise MlflowIpfsError(msg)


def _line(finding: Finding, previous_topic: str) -> str:
    sign = "!" if finding.state is State.PROBLEM else " "
    topic = "" if finding.topic == previous_topic else finding.topic
    return f"{sign} {topic:<12} {printable(finding.text)}"
