"""``block``: read single blocks, with the output of Kubo's commands of these names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_errors_option,
    json_option,
    pass_cli_context,
    shared_options,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import print_result

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName


@click.group()
@shared_options
def block() -> None:
    """Read single blocks of the store, each verified."""


@block.command()
@click.argument("content", type=ANY_CONTENT)
@tracking_option
@json_errors_option
@pass_cli_context
def get(cli_context: CliContext, content: ContentName, tracking_uri: str | None) -> None:
    """Write the bytes of a block to standard output."""
    output = sys.stdout.buffer
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        output.write(found.store.blocks.get(found.root))
        output.flush()


@block.command()
@click.argument("content", type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def stat(cli_context: CliContext, content: ContentName, tracking_uri: str | None, *, as_json: bool) -> None:
    """Print the CID of a block and its size in bytes, without the blocks below it."""
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        root = found.root
        size_bytes = len(found.store.blocks.get(root))
    print_result({"cid": str(root), "size_bytes": size_bytes}, f"Key: {root}\nSize: {size_bytes}", as_json=as_json)
