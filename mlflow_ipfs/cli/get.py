"""``get``: write content to disk."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.new_files import draft_beside, refuse_existing
from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    report_other_models,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import Progress, format_count, print_notice, print_result, printable
from mlflow_ipfs.content.dag import encode_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_ipfs.binding.uris import ContentName, Located


@click.command()
@click.argument("content", type=ANY_CONTENT)
@click.option(
    "-o",
    "--output",
    type=click.Path(readable=False, path_type=Path),
    help="Path to write to  [default: the content's name, in the current directory]",
)
@click.option("-f", "--force", is_flag=True, help="Overwrite PATH; other files in an existing directory are kept.")
@click.option(
    "--verify", is_flag=True, help="Hash every block, even of files whose inode, size and time match the index."
)
@click.option("--allow-outside-links", is_flag=True, help="Also write symlinks that point outside the content.")
@tracking_option
@json_option
@pass_cli_context
def get(
    cli_context: CliContext,
    content: ContentName,
    output: Path | None,
    tracking_uri: str | None,
    *,
    force: bool,
    verify: bool,
    allow_outside_links: bool,
    as_json: bool,
) -> None:
    """Write a file or directory to disk.

    A large file that the store keeps whole is copied without hashing if its inode, size and modification time match
    the index. With --verify, every block of every file is hashed while it is written, and nothing is written if a block
    is damaged.

    With --force, files are written into an existing directory, or into the one that a symlink leads to. Other files in
    it are kept and counted.
    """
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        target = output if output is not None else Path(found.name)
        refuse_existing(target, force=force)
        is_merged = os.path.isdir(target)  # noqa: PTH112 - never raises
        with (
            _destination(target) as path,
            Progress(f"writing {printable(str(target))}", total_bytes(found)) as progress,
        ):
            found.store.view(
                found.root,
                dst=path,
                allow_outside_links=allow_outside_links,
                verify=verify,
                progress=progress.advance,
            )
            others = _count_others(found, path) if is_merged else 0
        print_result(
            {"path": str(target), "cid": str(found.root), "verified": verify, "other_files": others},
            f"wrote  {printable(str(target))}  {found.root}{'  (every block hashed)' if verify else ''}",
            as_json=as_json,
        )
        if others and not as_json:
            print_notice(
                f"kept {format_count(others, 'other file')} in {printable(str(target))}, not part of the content; "
                f"`mlflow-ipfs verify {found.root} --against PATH --hidden` lists them"
            )
        if not as_json:
            report_other_models(found, "get")


@contextmanager
def _destination(target: Path) -> Iterator[Path]:
    """Yield the path to write to: a draft that becomes the target, or an existing directory.

    An existing directory is written to file by file, because other files in it are kept. A symlink that the user named
    is followed.
    """
    if os.path.isdir(target):  # noqa: PTH112 - never raises
        yield target.resolve()
        return
    with draft_beside(target) as draft:
        yield draft


def _count_others(found: Located, destination: Path) -> int:
    """Return the number of files and symlinks in a directory that are no part of the content written into it."""
    count = 0
    todo = [(found.root, destination)]
    while todo:
        cid, directory = todo.pop()
        entries = {encode_name(entry.name): entry for entry in found.store.ls(cid)}
        for path in directory.iterdir():
            entry = entries.get(os.fsencode(path.name))
            if entry is None:
                count += _count_files(path)
            elif entry.is_dir:
                todo.append((entry.cid, path))
    return count


def _count_files(path: Path) -> int:
    """Return the number of files and symlinks at and below a path."""
    count, todo = 0, [path]
    while todo:
        path = todo.pop()
        if path.is_symlink() or not path.is_dir():
            count += 1
        else:
            todo += path.iterdir()
    return count


def total_bytes(found: Located) -> int:
    """Return the approximate size of the data to read. Each link counts with the size that its node states."""
    return found.store.dag_size(found.root)
