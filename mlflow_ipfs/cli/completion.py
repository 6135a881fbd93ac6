"""``completion``: print the script that makes a shell complete the command line."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

from mlflow_ipfs.cli.errors import PROGRAM
from mlflow_ipfs.cli.options import json_errors_option, pass_cli_context

SHELLS: Final = ("bash", "zsh", "fish")
_VARIABLE: Final = "_MLFLOW_IPFS_COMPLETE"  # click's name for this program; the script sets it to ask for completions


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@json_errors_option
@pass_cli_context
@click.pass_context
def completion(context: click.Context, _: object, shell: str) -> None:
    """Print a script that completes commands, options and paths of mlflow-ipfs.

    \b
    bash: add to ~/.bashrc:      eval "$(mlflow-ipfs completion bash)"
    zsh:  add to ~/.zshrc:       eval "$(mlflow-ipfs completion zsh)"
    fish: mlflow-ipfs completion fish > ~/.config/fish/completions/mlflow-ipfs.fish
    """  # noqa: D301 - click reads the character \b as "do not rewrap"
    kind = get_completion_class(shell)
    assert kind is not None, "click supports the three shells"
    click.echo(kind(context.find_root().command, {}, PROGRAM, _VARIABLE).source())
