"""``car``: content in one file, for any IPFS tool."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.car_sources import STREAM, list_sources
from mlflow_ipfs.cli.get import total_bytes
from mlflow_ipfs.cli.new_files import refuse_existing, require_directory_above
from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    shared_options,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, note, print_result, printable
from mlflow_ipfs.content.car.format import CarPart
from mlflow_ipfs.content.car.resuming import draft_of
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.pins import USER
from mlflow_ipfs.content.system.destination_errors import translate_destination_errors
from mlflow_ipfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidCIDError,
    InvalidDataError,
    MlflowIpfsError,
    StoreFullError,
)

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName, Located
    from mlflow_ipfs.cli.car_sources import Source
    from mlflow_ipfs.content.car.importing import CarImport
    from mlflow_ipfs.content.car.resuming import ExportedCar

_MOST_ROOTS: Final = 16  # that fit into a command which people copy


@click.group()
@shared_options
def car() -> None:
    """Archives that carry content between IPFS tools (CARv1; CARv2 is read, too)."""


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
@click.option(
    "--from-byte",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="On stdout: leave out the first N bytes, which somebody has already.",
)
@tracking_option
@json_option
@pass_cli_context
def export(
    cli_context: CliContext,
    content: ContentName,
    output: Path,
    from_byte: int,
    tracking_uri: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write everything below a CID as one CAR; its root is the content that was named.

    The same content always gives the same bytes. An export to a file that was cut short goes on when it is run again. One
    through a pipe goes on with --from-byte: `ssh HOST mlflow-ipfs car export CID --from-byte $(stat -c %s x.car) >> x.car`
    """
    _check_output(output, from_byte)
    refuse_existing(output, force=force or output == STREAM)
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        if output == STREAM:
            with Progress(f"exporting {found.root}", _total(found)) as progress:
                stream = sys.stdout.buffer
                found.store.export_car(found.root, stream, skip_bytes=from_byte, progress=progress.advance)
                stream.flush()
            return
        done = _export_file(found, output, force=force)
    fields = {"path": str(output), "cid": str(found.root), "size_bytes": done.size_bytes}
    line = f"exported  {printable(str(output))}  {format_size(done.size_bytes)}  {found.root}"
    print_result(fields | {"resumed_bytes": done.resumed_bytes}, line, as_json=as_json)


def _check_output(output: Path, from_byte: int) -> None:
    if output == STREAM and sys.stdout.isatty():
        msg = "a CAR is no text for a terminal; name a file with -o, or redirect"
        raise click.UsageError(msg)
    if output != STREAM and from_byte:
        msg = "--from-byte is for standard output; an export to a file goes on by itself"
        raise click.UsageError(msg)


def _export_file(found: Located, output: Path, *, force: bool) -> ExportedCar:
    require_directory_above(output)
    try:
        with translate_destination_errors(output), Progress(f"exporting {found.root}", _total(found)) as progress:
            done = found.store.export_car_file(found.root, output, overwrite=force, progress=progress.advance)
    except BaseException as error:
        if not isinstance(error, (ConflictError, StoreFullError)) and os.path.lexists(draft_of(output)):
            draft = printable(str(draft_of(output)))
            note(f"{draft} keeps what was written; the same command goes on with it, or remove it")
        raise
    if done.resumed_bytes:
        rest = f"; {format_size(done.dropped_bytes)} behind that were not usable" if done.dropped_bytes else ""
        note(f"went on after {format_size(done.resumed_bytes)} of an earlier export{rest}")
    elif done.dropped_bytes:
        note("the draft of an earlier export held something else, so it was begun anew")
    return done


def _total(found: Located) -> int | None:
    try:
        return total_bytes(found)
    except InvalidDataError:  # not UnixFS: any DAG may be exported
        return None


class CIDType(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """A CID without a path."""

    name = "cid"

    def convert(self, value: str | CID, param: click.Parameter | None, ctx: click.Context | None) -> CID:
        """Read the argument."""
        try:
            return CID.parse(value) if isinstance(value, str) else value
        except InvalidCIDError as error:
            self.fail(str(error), param, ctx)


@car.command("import", short_help="Take in CARs and pin their roots.")
@click.argument("files", type=click.Path(readable=False, path_type=Path, allow_dash=True), nargs=-1, required=True)
@click.option("--join", is_flag=True, help="The files are pieces of one CAR, in this order.")
@click.option(
    "--from-byte",
    type=click.IntRange(min=1),
    metavar="N",
    help="What is read is only the rest of a CAR, from its byte N on.",
)
@click.option(
    "--to-byte", type=click.IntRange(min=1), metavar="N", help="And its blocks end before byte N, if it is a CARv2."
)
@click.option("--root", "roots", type=CIDType(), multiple=True, metavar="CID", help="And this is its root.")
@click.option("--all-blocks", is_flag=True, help="Keep blocks that no root needs, too, until a gc drops them.")
@json_option
@pass_cli_context
def import_(
    cli_context: CliContext,
    files: tuple[Path, ...],
    from_byte: int | None,
    to_byte: int | None,
    roots: tuple[CID, ...],
    *,
    join: bool,
    all_blocks: bool,
    as_json: bool,
) -> None:
    """Take in CARs (files, or - for standard input), pin their roots and print them.

    Blocks that no root needs are left out. A CAR that names no root is taken in whole.

    Files may be CARs that are complete only together, in any order. When a stream breaks off, everything before the
    break is kept, and the error says how to go on from there: with the rest of the CAR, --from-byte and --root.
    """
    part = _part_of(files, from_byte, to_byte, roots, join=join)
    sources, total = list_sources(files, join=join)
    label = f"importing {sources[0].name}" if len(sources) == 1 else f"importing {len(sources)} CARs"
    with (
        cli_context.open_store(create=True) as store,
        Progress(label, total) as progress,
        store.begin_car_import(all_blocks=all_blocks, progress=progress.advance) as transfer,
    ):
        for source in sources:
            _take(cli_context, transfer, source, part, progress)
        found = _finish(cli_context, transfer, sources)
    left_out = {"left_out_blocks": transfer.left_out_blocks, "left_out_bytes": transfer.left_out_bytes}
    for root in found:
        print_result({"cid": str(root)} | left_out, f"imported  {root}", as_json=as_json)
    if transfer.left_out_blocks:
        size = format_size(transfer.left_out_bytes)
        note(
            f"left out {format_count(transfer.left_out_blocks, 'block')} ({size}) that no root needs; see --all-blocks"
        )
    if not found:
        why = "no --root was named" if part else "no root is named in the CAR"
        note(f"{why}, so nothing is pinned; `mlflow-ipfs pin add CID` keeps content")


def _part_of(
    files: tuple[Path, ...], from_byte: int | None, to_byte: int | None, roots: tuple[CID, ...], *, join: bool
) -> CarPart | None:
    """What the options say about the stream, checked for sense."""
    problem = None
    if from_byte is None and (roots or to_byte):
        problem = "--root and --to-byte say something about the rest of a CAR, so they need --from-byte"
    elif from_byte is not None and len(files) > 1 and not join:
        problem = "--from-byte is about one stream: name one file, or join them with --join"
    elif from_byte is not None and to_byte is not None and to_byte <= from_byte:
        problem = f"--to-byte has to be larger than --from-byte, {from_byte}"
    if problem is not None:
        raise click.UsageError(problem)
    return None if from_byte is None else CarPart(from_byte, to_byte, roots)


def _take(
    cli_context: CliContext, transfer: CarImport, source: Source, part: CarPart | None, progress: Progress
) -> None:
    try:
        with source.open() as stream:
            transfer.take(stream, part)
    except (InvalidDataError, IntegrityError) as error:
        msg = f"{source.name}: {error}{_how_to_continue(cli_context, transfer, source)}"
        raise IntegrityError(msg) from error
    except MlflowIpfsError as error:
        msg = f"{error}{_how_to_continue(cli_context, transfer, source)}"
        raise type(error)(msg) from error
    except BaseException:  # an interrupt, or the stream's own error
        progress.clear()
        if transfer.kept_blocks:
            note(f"{source.name}: {transfer.kept()}{_how_to_continue(cli_context, transfer, source)}")
        raise


def _finish(cli_context: CliContext, transfer: CarImport, sources: list[Source]) -> list[CID]:
    try:
        return transfer.finish(USER)
    except MlflowIpfsError as error:
        if len(sources) > 1 or transfer.payload_end is not None:
            raise
        # A CARv1 does not say where it ends: one that broke off between two blocks looks whole.
        msg = f"{error}{_how_to_continue(cli_context, transfer, sources[0])}"
        raise type(error)(msg) from error


def _how_to_continue(cli_context: CliContext, transfer: CarImport, source: Source) -> str:
    """The command that takes the rest of a stream; nothing for files, which are simply imported again."""
    start = transfer.resume_from
    if not source.is_stdin or not transfer.kept_blocks or len(transfer.roots) > _MOST_ROOTS:
        return ""
    words = ["mlflow-ipfs", *cli_context.store_option, "car", "import", "--from-byte", str(start)]
    if transfer.all_blocks:
        words.append("--all-blocks")
    if transfer.payload_end is not None:
        words += ["--to-byte", str(transfer.payload_end)]
    for root in transfer.roots:
        words += ["--root", str(root)]
    return f". To send only the rest, as `curl --range {start}- URL` does, pipe it to: {shlex.join([*words, '-'])}"
