"""``add``: import files and directories into the store."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mlflow_ipfs.cli.options import CliContext, json_option, pass_cli_context
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable
from mlflow_ipfs.content.files.chunker import Chunker, parse_chunker
from mlflow_ipfs.content.files.importer import named_sources
from mlflow_ipfs.content.files.source import follow, stat_source
from mlflow_ipfs.content.profiles import PROFILES, profile_named
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidPathError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from mlflow_ipfs.config import Settings
    from mlflow_ipfs.content.files.importer import Added

_STDIN: Final = "-"


class ChunkerType(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """Type of an option that names a chunker, as Kubo writes it."""

    name = "chunker"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Chunker:  # noqa: ANN401 - click's
        """Parse the chunker's name."""
        try:
            return parse_chunker(value)
        except SettingsError as error:
            self.fail(str(error), param, ctx)


@dataclass(frozen=True, slots=True)
class AddOptions:
    """Options that apply to every path of the command."""

    only_hash: bool
    hidden: bool
    follow: bool
    wrap: bool
    preserve_mode: bool
    preserve_mtime: bool


@click.command(short_help="Add files and directories to the store and pin them.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(readable=False, allow_dash=True))
@click.option("-n", "--only-hash", is_flag=True, help="Compute the CIDs without storing anything.")
@click.option("--profile", type=click.Choice(list(PROFILES)), help="Import profile; changes the CID.")
@click.option(
    "--chunker",
    metavar="size-N",
    type=ChunkerType(),
    help="Split files into chunks of N bytes, at most 1048576; changes the CID.",
)
@click.option(
    "-H", "--hidden", is_flag=True, help="Include hidden entries of directories, whose names start with a dot."
)
@click.option(
    "--follow",
    "--dereference-symlinks",
    is_flag=True,
    help="Add what symlinks in directories lead to, instead of the links.",
)
@click.option(
    "-w",
    "--wrap",
    "--wrap-with-directory",
    is_flag=True,
    help="Wrap all PATHs in one directory, which keeps their names.",
)
@click.option("--preserve-mode", is_flag=True, help="Record permission bits; changes the CID.")
@click.option("--preserve-mtime", is_flag=True, help="Record modification times; changes the CID.")
@click.option("-q", "--quiet", is_flag=True, help="Print CIDs only.")
@json_option
@pass_cli_context
def add(
    cli_context: CliContext,
    /,
    paths: tuple[str, ...],
    profile: str | None,
    chunker: Chunker | None,
    *,
    quiet: bool,
    as_json: bool,
    **flags: bool,
) -> None:
    """Add files and directories to the store and pin them.

    Prints one line for each PATH: its size, how much of it was new, and its CID. PATH may be - for standard input.
    Hidden entries of directories are skipped unless --hidden is given. A symlink that is named directly is followed;
    other symlinks are stored as links unless --follow is given.

    With --wrap, prints one line with the CID of the directory that contains all PATHs.

    The CIDs are the same as those of Kubo with the same import profile. `ipfs add` without options uses an older one and
    prints Qm…; compare with `add --profile unixfs-v0-2015`, or configure Kubo once with `ipfs config profile apply
    unixfs-v1-2025`.
    """
    options = AddOptions(**flags)
    settings = cli_context.settings
    if profile is not None:
        settings = replace(settings, profile=profile_named(profile), chunker=None)
    if chunker is not None:
        settings = replace(settings, chunker=chunker)
    _check_paths(paths, settings.store, options)
    groups = [paths] if options.wrap else [(path,) for path in paths]
    names = [", ".join(map(printable, group)) for group in groups]
    with _hashing_store(settings) if options.only_hash else cli_context.open_store(settings, create=True) as store:
        for group, name in zip(groups, names, strict=True):
            added = _add(store, group, options)
            verb, novelty = ("hashed", "") if options.only_hash else ("added", _novelty(added))
            size = f"{format_size(added.size_bytes):>8}{novelty}"
            line = f"{verb}  {name.ljust(max(map(len, names)))}  {size}  {added.cid}"
            fields = asdict(added) | {"path": group[0], "paths": list(group), "cid": str(added.cid)}
            if options.only_hash:
                fields["new_bytes"] = None  # unknown: the store was not asked
            print_result(fields, str(added.cid) if quiet else line, as_json=as_json)
            if not as_json:
                _report_left_out(added, name)


def _report_left_out(added: Added, name: str) -> None:
    """Print what a path contains that was not stored."""
    if added.hidden_left_out:
        skipped = format_count(added.hidden_left_out, "hidden entry")
        print_notice(f"skipped {skipped} in {name}; use --hidden to include hidden entries")
    if added.symlinks:
        links = format_count(added.symlinks, "symlink")
        as_links, targets = ("as a link", "it leads to") if added.symlinks == 1 else ("as links", "they lead to")
        print_notice(f"stored {links} in {name} {as_links}; use --follow to store what {targets}")


def _novelty(added: Added) -> str:
    """Return how much of the content the store did not have, as the end of a line."""
    if not added.size_bytes:
        return ""
    if not added.new_bytes:
        return ", nothing new"
    if added.new_bytes >= added.dag_bytes:
        return ", all new"
    of_it = " of it" if added.new_bytes <= added.size_bytes else ""  # new_bytes includes nodes, size_bytes does not
    return f", {format_size(added.new_bytes)}{of_it} new"


def _check_paths(paths: tuple[str, ...], store: Path, options: AddOptions) -> None:
    """Raise if a path cannot be added, before any path is added."""
    for path in paths:
        if path == _STDIN:
            if options.wrap or options.preserve_mode or options.preserve_mtime:
                msg = "standard input has no name, mode or time; use --wrap, --preserve-mode and --preserve-mtime with paths only"
                raise click.UsageError(msg)
            continue
        follow(stat_source(os.fsencode(path)))
        if store.resolve().is_relative_to(Path(path).resolve()):
            msg = f"{path!r} contains the store itself ({store}); add other paths, or name another store with --store"
            raise click.UsageError(msg)
    if options.wrap:
        try:
            named_sources(paths)
        except InvalidPathError as error:
            raise click.UsageError(str(error)) from error
    if paths.count(_STDIN) > 1:
        msg = "standard input (-) can be named only once"
        raise click.UsageError(msg)


def _add(store: ContentStore, paths: tuple[str, ...], options: AddOptions) -> Added:
    if paths == (_STDIN,):
        with Progress("adding standard input") as progress:
            stream = _CountedStream(sys.stdin.buffer, progress.advance)
            return store.add_stream(io.BufferedReader(stream, 1 << 20), only_hash=options.only_hash)
    with Progress(f"adding {', '.join(map(printable, paths))}", _total_bytes(paths, options)) as progress:
        return store.add(
            paths,
            only_hash=options.only_hash,
            hidden=options.hidden,
            follow_symlinks=options.follow,
            wrap=options.wrap,
            preserve_mode=options.preserve_mode,
            preserve_mtime=options.preserve_mtime,
            progress=progress.advance,
        )


def _total_bytes(paths: tuple[str, ...], options: AddOptions) -> int | None:
    """Return the size of the data to read, for the progress line; None if no line is shown, or the size is not known.

    The import itself reports unreadable files, and symlinks that form loops.
    """
    if options.follow or not sys.stderr.isatty():
        return None
    return sum(_tree_bytes(path, hidden=options.hidden) for path in paths)


def _tree_bytes(path: str, *, hidden: bool) -> int:
    total = 0
    for directory, directories, files in os.walk(path):
        if not hidden:
            directories[:] = [name for name in directories if not name.startswith(".")]
        for name in files:
            if hidden or not name.startswith("."):
                total += _size_bytes(f"{directory}/{name}")
    return total or _size_bytes(os.path.realpath(path))


def _size_bytes(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


class _CountedStream(io.RawIOBase):
    """A stream that reports how many bytes were read from it."""

    def __init__(self, stream: BinaryIO, count: Callable[[int], None]) -> None:
        super().__init__()
        self._stream = stream
        self._count = count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # typeshed says Buffer
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._count(len(data))
        return len(data)


def _hashing_store(settings: Settings) -> ContentStore:
    """Return a store in memory, which is enough to compute CIDs."""
    return ContentStore(MemoryStorage(), profile=settings.profile, chunker=settings.chunker)
