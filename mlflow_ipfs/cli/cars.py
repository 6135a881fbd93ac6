"""``car``: content in one file, for any IPFS tool."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from mlflow_ipfs.cli.new_files import draft_beside, refuse_existing
from mlflow_ipfs.cli.options import ANY_CONTENT, Workplace, find, json_option, pass_workplace, tracking_option
from mlflow_ipfs.cli.reading import total_bytes
from mlflow_ipfs.cli.terminal import Progress, format_size, print_result, printable
from mlflow_ipfs.content.pins import USER
from mlflow_ipfs.errors import IntegrityError, InvalidDataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.binding.uris import ContentName, Located

STREAM = Path("-")


@click.group()
def car() -> None:
    """Archives that carry content between IPFS tools (CARv1)."""


@car.command("export", short_help="Write content as one CAR.")
@click.argument("content", type=ANY_CONTENT)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    default=STREAM,
    help="File to write, or - for stdout.",
)
@click.option("-f", "--force", is_flag=True, help="Write over an existing file.")
@tracking_option
@json_option
@pass_workplace
def export(
    workplace: Workplace, content: ContentName, output: Path, tracking_uri: str | None, *, force: bool, as_json: bool
) -> None:
    """Write everything below a CID as one CAR; its root is the content that was named."""
    if output == STREAM and sys.stdout.isatty():
        msg = "a CAR is no text for a terminal; name a file with -o, or redirect"
        raise click.UsageError(msg)
    refuse_existing(output, force=force or output == STREAM)
    with workplace.open_store() as store:
        found = find(store, content, tracking_uri)
        with Progress(f"exporting {found.root}", _total(found)) as progress, _open_output(output) as file:
            size = found.store.export_car(found.root, file, progress=progress.advance)
        if output != STREAM:
            fields = {"path": str(output), "cid": str(found.root), "size_bytes": size}
            line = f"exported  {printable(str(output))}  {format_size(size)}  {found.root}"
            print_result(fields, line, as_json=as_json)


def _total(found: Located) -> int | None:
    try:
        return total_bytes(found)
    except InvalidDataError:  # not UnixFS: any DAG may be exported
        return None


@contextmanager
def _open_output(output: Path) -> Iterator[BinaryIO]:
    if output == STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with draft_beside(output) as draft, draft.open("xb") as file:
        yield file


@car.command("import", short_help="Take in a CAR and pin its roots.")
@click.argument("file", type=click.Path(readable=False, path_type=Path, allow_dash=True))
@json_option
@pass_workplace
def import_(workplace: Workplace, file: Path, *, as_json: bool) -> None:
    """Take in a CAR (a file, or - for standard input), pin its roots and print them."""
    with _open_input(file) as stream, workplace.open_store(create=True) as store:
        size = file.stat().st_size if file != STREAM else None
        with Progress(f"importing {printable(str(file))}", size) as progress:
            try:
                roots = store.import_car(stream, pin=USER, progress=progress.advance)
            except (InvalidDataError, IntegrityError) as error:
                msg = f"{'standard input' if file == STREAM else file}: {error}"
                raise IntegrityError(msg) from error
    for root in roots:
        print_result({"cid": str(root)}, f"imported  {root}", as_json=as_json)


@contextmanager
def _open_input(file: Path) -> Iterator[BinaryIO]:
    if file == STREAM:
        yield sys.stdin.buffer
        return
    with file.open("rb") as stream:
        yield stream
