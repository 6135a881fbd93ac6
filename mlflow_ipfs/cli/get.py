"""``get``, ``cat`` and ``ls``: content comes out again, verified."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.new_files import draft_beside, refuse_existing
from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    Workplace,
    find,
    json_errors_option,
    json_option,
    pass_workplace,
    text_of,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import Progress, align, format_size, note, print_result, printable
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.errors import IsAFolderError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_ipfs.binding.uris import ContentName, Located
    from mlflow_ipfs.content.listing import Entry

_PIECE_BYTES: Final = 1 << 20
_SUFFIXES: Final = {"directory": "/", "symlink": "@", "unknown": "?"}


@click.command()
@click.argument("content", type=ANY_CONTENT)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    help="Where to write it  [default: its name, here]",
)
@click.option("-f", "--force", is_flag=True, help="Write over what is at PATH; in a folder, other files stay.")
@click.option(
    "--verify", is_flag=True, help="Hash every block, also in files that are trusted by inode, size and time."
)
@click.option("--allow-outside-links", is_flag=True, help="Restore symlinks that point out of the content, too.")
@tracking_option
@json_option
@pass_workplace
def get(
    workplace: Workplace,
    content: ContentName,
    output: Path | None,
    tracking_uri: str | None,
    *,
    force: bool,
    verify: bool,
    allow_outside_links: bool,
    as_json: bool,
) -> None:
    """Write a file or folder to disk.

    A large file that the store keeps whole is copied without hashing if its inode, size and time are
    those of the index. With --verify every block of every file is hashed while it is written, and
    nothing is written if one is damaged.
    """
    with workplace.open_store() as store:
        found = find(store, content, tracking_uri)
        target = output if output is not None else Path(found.name)
        refuse_existing(target, force=force)

        def export(path: Path) -> None:
            with Progress(f"writing {printable(str(target))}", total_bytes(found)) as progress:
                found.store.view(
                    found.root,
                    dst=path,
                    allow_outside_links=allow_outside_links,
                    verify=verify,
                    progress=progress.advance,
                )

        _write(target, export)
        print_result(
            {"path": str(target), "cid": str(found.root), "verified": verify},
            f"got  {printable(str(target))}  {found.root}{'  every block hashed' if verify else ''}",
            as_json=as_json,
        )


def _write(target: Path, export: Callable[[Path], None]) -> None:
    if os.path.isdir(target):  # noqa: PTH112 - never raises. With --force: file by file, what is there besides stays
        export(target)
        return
    with draft_beside(target) as draft:
        export(draft)


def total_bytes(found: Located) -> int:
    """About how much there is to read: each link to a block counts, as its node states it."""
    return read_unixfs(found.store.storage.blocks, found.root).dag_bytes


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


@click.command(short_help="List a folder.")
@click.argument("content", type=ANY_CONTENT)
@tracking_option
@json_option
@pass_workplace
def ls(workplace: Workplace, content: ContentName, tracking_uri: str | None, *, as_json: bool) -> None:
    """List a folder: CID, size and name of each entry. Folders end in /, symlinks in @, data that is not UnixFS in ?.

    A folder of mfs:// has a CID only if it was frozen or pinned as it is now; else a - stands there.
    """
    with workplace.open_store() as store:
        found = find(store, content, tracking_uri)
        entries = _list(found)
        folders = [entry.cid for entry in entries if found.place and entry.is_dir]
        unnamed = {cid for cid in folders if not store.storage.blocks.has(cid)}
    if as_json:
        for entry in entries:
            cid = None if entry.cid in unnamed else str(entry.cid)
            fields = {"name": entry.name, "cid": cid, "kind": entry.kind, "size_bytes": entry.size_bytes}
            print_result(fields, "", as_json=True)
        return
    rows = [("-" if entry.cid in unnamed else str(entry.cid), _size_of(entry), _name_of(entry)) for entry in entries]
    for line in align(rows, right={1}):
        click.echo(line)
    if unnamed:
        note(
            f"folders with - can still change; `mlflow-ipfs pin add {found.place}` pins this one as it is, and prints its CID"
        )


def _list(found: Located) -> list[Entry]:
    entry = found.store.stat(found.cid, found.path)
    return found.store.ls(entry.cid) if entry.is_dir else [entry]


def _size_of(entry: Entry) -> str:
    return "-" if entry.is_dir else format_size(entry.size_bytes)


def _name_of(entry: Entry) -> str:
    return printable(entry.name) + _SUFFIXES.get(entry.kind, "")
