"""``doctor``: what is installed, where the store is, what is wrong; with ``--rebuild``, a new index."""

from __future__ import annotations

import click

from mlflow_ipfs.cli.doctor_checks import Finding, State, examine
from mlflow_ipfs.cli.doctor_rebuild import rebuild
from mlflow_ipfs.cli.options import (
    CliContext,
    json_option,
    pass_cli_context,
)
from mlflow_ipfs.cli.terminal import format_count, print_result, printable
from mlflow_ipfs.errors import MlflowIpfsError


@click.command(short_help="Say what is installed, where the store is, what is wrong.")
@click.option(
    "--rebuild", "is_rebuild", is_flag=True, help="Make a new index for a store whose store.db is lost or damaged."
)
@click.option(
    "--backend-store-uri", metavar="URI", help="MLflow's database: list its model versions that are not frozen, too."
)
@json_option
@pass_cli_context
@click.pass_context
def doctor(
    context: click.Context, cli_context: CliContext, *, is_rebuild: bool, backend_store_uri: str | None, as_json: bool
) -> None:
    """Say what is installed, where the store is and what is in it, and what is wrong.

    Exits with 1 if something is. With --backend-store-uri, list the model versions whose files may
    change: those that were registered without mlflow-ipfs, or with another MLFLOW_IPFS_FREEZE than required.

    With --rebuild, make a new index (store.db) instead: every file of the store is read and hashed;
    pins, refs and mfs:// files come from what is left of the old index and from its backups. What no
    name needs is pinned for `recovered/<time>`, so that no gc drops it. Nobody else may use the store
    meanwhile. The old index is kept in quarantine/.
    """
    if is_rebuild and backend_store_uri:
        msg = "--rebuild reads the store alone; call doctor again with --backend-store-uri"
        raise click.UsageError(msg)
    if is_rebuild:
        rebuild(cli_context, as_json=as_json)
        return
    application = context.find_root().command
    own_commands = application.commands if isinstance(application, click.Group) else {}
    problems, previous = 0, ""
    for finding in examine(cli_context, own_commands, backend_store_uri):
        problems += finding.state is State.PROBLEM
        fields = {"topic": finding.topic, "state": str(finding.state), "text": finding.text} | finding.facts
        print_result(fields, _line(finding, previous), as_json=as_json)
        previous = finding.topic
    if problems:
        msg = f"{format_count(problems, 'problem')} found"
        raise MlflowIpfsError(msg)


def _line(finding: Finding, previous_topic: str) -> str:
    mark = "!" if finding.state is State.PROBLEM else " "
    topic = "" if finding.topic == previous_topic else finding.topic
    return f"{mark} {topic:<12} {printable(finding.text)}"
