"""``cat``: write the bytes of a file to standard output, verified."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    Workplace,
    find,
    json_errors_option,
    pass_workplace,
    text_of,
    tracking_option,
)
from mlflow_ipfs.errors import IsAFolderError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName

_PIECE_BYTES: Final = 1 << 20


@click.command()
@click.argument("content", type=ANY_CONTENT)
@click.option("--offset", type=click.IntRange(min=0), default=0, metavar="N", help="Leave out the first N bytes.")
@click.option("--length", type=click.IntRange(min=0), metavar="N", help="Write at most N bytes.")
@tracking_option
@json_errors_option
@pass_workplace
def cat(workplace: Workplace, content: ContentName, offset: int, length: int | None, tracking_uri: str | None) -> None:
    """Write the bytes of a file to standard output."""
    output = sys.stdout.buffer
    with workplace.open_store() as store:
        found = find(store, content, tracking_uri)
        try:
            file = found.store.open(found.cid, found.path)
        except IsAFolderError as error:
            msg = f"{text_of(content)} is a folder; list it with `mlflow-ipfs ls` or write it to disk with `mlflow-ipfs get`"
            raise IsAFolderError(msg) from error
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
