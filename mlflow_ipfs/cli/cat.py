"""``cat``: write the verified bytes of a file to standard output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_errors_option,
    pass_cli_context,
    text_of,
    tracking_option,
)
from mlflow_ipfs.errors import IsDirectoryError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName

_PIECE_BYTES: Final = 1 << 20


@click.command()
@click.argument("content", type=ANY_CONTENT)
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Skip the first N bytes.")
@click.option("--length", type=click.IntRange(min=0), metavar="N", help="Write at most N bytes.")
@tracking_option
@json_errors_option
@pass_cli_context
def cat(
    cli_context: CliContext, content: ContentName, offset: int, length: int | None, tracking_uri: str | None
) -> None:
    """Write the bytes of a file to standard output."""
    output = sys.stdout.buffer
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        try:
            file = found.store.open(found.cid, found.path)
        except IsDirectoryError as error:
            msg = (
                f"{text_of(content)} is a directory; list it with `mlflow-ipfs ls`, or write it to disk with "
                "`mlflow-ipfs get`"
            )
            raise IsDirectoryError(msg) from error
        with file:
            file.seek(offset)
            left = length
            while left is None or left > 0:
                piece = file.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
                if not piece:
                    break
                output.write(piece)
                left = None if left is None else left - len(piece)
        output.flush()
