"""``car``: export and import content as CAR files, which any IPFS tool can read."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
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
    report_other_models,
    shared_options,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable
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

_MAX_PRINTED_ROOTS: Final = 16  # more make the printed command too long to copy


@click.group()
@shared_options
def car() -> None:
    """Export and import CAR files.

    CAR files carry content between IPFS tools. Exports are CARv1; imports accept CARv1 and CARv2.
    """


@car.command("export", short_help="Export content as a CAR.")
@click.argument("content", type=ANY_CONTENT)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    default=STREAM,
    help="File to write, or - for standard output (the default).",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite an existing file.")
@click.option(
    "--from-byte",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="On standard output: skip the first N bytes, which the receiver has already.",
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
    """Export content and everything below it as one CAR, whose root is the content.

    The same content always gives the same bytes. To resume an interrupted export to a file, run the same command again.
    To resume an export through a pipe, use --from-byte:

    \b
      ssh HOST mlflow-ipfs car export CID --from-byte $(stat -c %s x.car) >> x.car
    """  # noqa: D301 - click reads the character \b as "do not rewrap"
    _check_output(output, from_byte)
    refuse_existing(output, force=force or output == STREAM)
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        if not as_json:
            report_other_models(found, "car export -o FILE")
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
        msg = "a CAR is binary and cannot be written to a terminal; name a file with -o, or redirect the output"
        raise click.UsageError(msg)
    if output != STREAM and from_byte:
        msg = "--from-byte is for standard output only; an export to a file resumes without it"
        raise click.UsageError(msg)


def _export_file(found: Located, output: Path, *, force: bool) -> ExportedCar:
    require_directory_above(output)
    try:
        with translate_destination_errors(output), Progress(f"exporting {found.root}", _total(found)) as progress:
            done = found.store.export_car_file(found.root, output, overwrite=force, progress=progress.advance)
    except BaseException as error:
        if not isinstance(error, (ConflictError, StoreFullError)) and os.path.lexists(draft_of(output)):
            draft = printable(str(draft_of(output)))
            print_notice(
                f"the partial export is kept in {draft}; run the same command to resume it, or remove the file"
            )
        raise
    if done.resumed_bytes:
        rest = f"; the {format_size(done.dropped_bytes)} after that were unusable" if done.dropped_bytes else ""
        print_notice(f"resumed after {format_size(done.resumed_bytes)} of an earlier export{rest}")
    elif done.dropped_bytes:
        print_notice("started again from the beginning, because the partial export did not match this content")
    return done


def _total(found: Located) -> int | None:
    try:
        return total_bytes(found)
    except InvalidDataError:  # not UnixFS; any DAG can be exported
        return None


class CIDType(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """Type of an option that is a CID without a path."""

    name = "cid"

    def convert(self, value: str | CID, param: click.Parameter | None, ctx: click.Context | None) -> CID:
        """Parse the CID."""
        try:
            return CID.parse(value) if isinstance(value, str) else value
        except InvalidCIDError as error:
            self.fail(str(error), param, ctx)


@car.command("import", short_help="Import CARs and pin their roots.")
@click.argument("files", type=click.Path(readable=False, path_type=Path, allow_dash=True), nargs=-1, required=True)
@click.option("--join", is_flag=True, help="Treat FILES as consecutive pieces of one CAR.")
@click.option(
    "--from-byte",
    type=click.IntRange(min=1),
    metavar="N",
    help="The input is the rest of a CAR, which starts at byte N of the CAR.",
)
@click.option(
    "--to-byte",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --from-byte: the blocks end before byte N of the CAR (CARv2).",
)
@click.option(
    "--root", "roots", type=CIDType(), multiple=True, metavar="CID", help="With --from-byte: a root of the CAR."
)
@click.option("--all-blocks", is_flag=True, help="Also keep blocks that no root needs, until a gc removes them.")
@click.option("--no-pin", is_flag=True, help="Do not pin the roots: a gc removes them, unless a name retains them.")
@json_option
@pass_cli_context
def import_(  # noqa: PLR0913 - one for each option
    cli_context: CliContext,
    files: tuple[Path, ...],
    from_byte: int | None,
    to_byte: int | None,
    roots: tuple[CID, ...],
    *,
    join: bool,
    all_blocks: bool,
    no_pin: bool,
    as_json: bool,
) -> None:
    """Import CARs (files, or - for standard input), pin their roots and print them.

    Blocks that no root needs are skipped. A CAR that names no root is imported completely. The roots are pinned in one
    step at the end: an import that breaks off pins nothing.

    FILES may be several CARs, in any order, which are complete only together. If a stream breaks off, everything before
    the break is kept. The error message then contains the command that imports the rest of the CAR.
    """
    advice = _Advice(cli_context.store_option, no_pin=no_pin)
    part = _part_of(files, from_byte, to_byte, roots, join=join)
    sources, total = list_sources(files, join=join)
    label = f"importing {sources[0].name}" if len(sources) == 1 else f"importing {len(sources)} CARs"
    with (
        cli_context.open_store(create=True) as store,
        Progress(label, total) as progress,
        store.begin_car_import(all_blocks=all_blocks, progress=progress.advance) as transfer,
    ):
        for source in sources:
            _import_source(advice, transfer, source, part, progress)
        found = _finish(advice, transfer, sources, pin=None if no_pin else USER)
    left_out = {"left_out_blocks": transfer.left_out_blocks, "left_out_bytes": transfer.left_out_bytes}
    for root in found:
        fields = {"cid": str(root), "pinned": not no_pin} | left_out
        print_result(fields, f"imported  {root}", as_json=as_json)
    if transfer.left_out_blocks:
        size = format_size(transfer.left_out_bytes)
        print_notice(
            f"skipped {format_count(transfer.left_out_blocks, 'block')} ({size}) that no root needs; --all-blocks keeps them"
        )
    if not found or (no_pin and not as_json):
        reason = "of --no-pin" if found else "no --root was given" if part else "the CAR names no root"
        after = "gc removes the content after its grace period, unless you pin it with `mlflow-ipfs pin add CID`"
        print_notice(f"nothing was pinned, because {reason}; {after}")


def _part_of(
    files: tuple[Path, ...], from_byte: int | None, to_byte: int | None, roots: tuple[CID, ...], *, join: bool
) -> CarPart | None:
    """Return the part of a CAR that the options describe; None for a whole CAR.

    Raises:
        click.UsageError: the options contradict each other.
    """
    problem = None
    if from_byte is None and (roots or to_byte):
        problem = "--root and --to-byte require --from-byte"
    elif from_byte is not None and len(files) > 1 and not join:
        problem = "--from-byte applies to one stream; name one file, or join the files with --join"
    elif from_byte is not None and to_byte is not None and to_byte <= from_byte:
        problem = f"--to-byte must be larger than --from-byte ({from_byte})"
    if problem is not None:
        raise click.UsageError(problem)
    return None if from_byte is None else CarPart(from_byte, to_byte, roots)


def _import_source(
    advice: _Advice, transfer: CarImport, source: Source, part: CarPart | None, progress: Progress
) -> None:
    try:
        with source.open() as stream:
            transfer.take(stream, part)
    except (InvalidDataError, IntegrityError) as error:
        msg = f"{source.name}: {error}{advice.how_to_continue(transfer, source)}"
        raise IntegrityError(msg) from error
    except MlflowIpfsError as error:
        msg = f"{error}{advice.how_to_continue(transfer, source)}"
        raise type(error)(msg) from error
    except BaseException:  # an interrupt, or an error of the stream
        progress.clear()
        if transfer.kept_blocks:
            print_notice(f"{source.name}: {transfer.kept()}{advice.how_to_continue(transfer, source)}")
        raise


def _finish(advice: _Advice, transfer: CarImport, sources: list[Source], *, pin: str | None) -> list[CID]:
    try:
        return transfer.finish(pin, _label_of(sources))
    except MlflowIpfsError as error:
        if len(sources) > 1 or transfer.payload_end is not None:
            raise
        # A CARv1 does not record its end: after a break between two blocks it looks complete.
        msg = f"{error}{advice.how_to_continue(transfer, sources[0])}"
        raise type(error)(msg) from error


def _label_of(sources: list[Source]) -> str:
    """Return the name that the pins of the roots remember."""
    first = sources[0].paths[0]
    name = "" if first == STREAM else first.name
    return f"{name} and {len(sources) - 1} more" if name and len(sources) > 1 else name


@dataclass(frozen=True, slots=True)
class _Advice:
    """Advice on how to continue an import that broke off, with the options of the command."""

    store_option: list[str]
    no_pin: bool

    def how_to_continue(self, transfer: CarImport, source: Source) -> str:
        """Return advice with the command that imports the rest of a stream.

        The advice is empty for files, because importing a file again continues the import.
        """
        start = transfer.resume_from
        if not source.is_stdin or not transfer.kept_blocks or len(transfer.roots) > _MAX_PRINTED_ROOTS:
            return ""
        words = ["mlflow-ipfs", *self.store_option, "car", "import", "--from-byte", str(start)]
        words += ["--all-blocks"] * transfer.all_blocks + ["--no-pin"] * self.no_pin
        if transfer.payload_end is not None:
            words += ["--to-byte", str(transfer.payload_end)]
        for root in transfer.roots:
            words += ["--root", str(root)]
        command = shlex.join([*words, "-"])
        return f". To import only the rest, for example from `curl --range {start}- URL`, pipe it to: {command}"
