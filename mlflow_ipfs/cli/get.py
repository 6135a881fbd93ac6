"""``get``: write content to disk."""

from __future__ import annotations

import os
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
from mlflow_ipfs.cli.terminal import Progress, print_result, printable

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """
    with cli_context.open_store() as store:
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
            f"wrote  {printable(str(target))}  {found.root}{'  (every block hashed)' if verify else ''}",
            as_json=as_json,
        )
        if not as_json:
            report_other_models(found, "get")


def _write(target: Path, export: Callable[[Path], None]) -> None:
    if os.path.isdir(target):  # noqa: PTH112 - never raises
        # With --force: replace file by file, because other files in the directory are kept.
        export(target)
        return
    with draft_beside(target) as draft:
        export(draft)


def total_bytes(found: Located) -> int:
    """Return the approximate size of the data to read. Each link counts with the size that its node states."""
    return found.store.dag_size(found.root)
