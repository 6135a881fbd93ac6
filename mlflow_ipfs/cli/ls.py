"""``ls``: list a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    report_other_models,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import align, format_size, print_notice, print_result, printable

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName, Located
    from mlflow_ipfs.content.listing import Entry

_SUFFIXES: Final = {"directory": "/", "symlink": "@", "unknown": "?"}


@click.command(short_help="List a directory.")
@click.argument("content", type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def ls(cli_context: CliContext, content: ContentName, tracking_uri: str | None, *, as_json: bool) -> None:
    """List the entries of a directory: CID, size and name.

    The name of a directory ends in /, that of a symlink in @, that of data that is not UnixFS in ?.

    A directory below mfs:// can change. It shows - instead of a CID until its present state is frozen or pinned.
    """
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        entries = _list(found)
        directories = [entry.cid for entry in entries if found.mutable_path and entry.is_dir]
        unnamed = {cid for cid in directories if not store.has(cid)}
    if as_json:
        for entry in entries:
            cid = None if entry.cid in unnamed else str(entry.cid)
            fields = {"name": entry.name, "cid": cid, "kind": entry.kind, "size_bytes": entry.size_bytes}
            print_result(fields, "", as_json=True)
        return
    rows = [("-" if entry.cid in unnamed else str(entry.cid), _size_of(entry), _name_of(entry)) for entry in entries]
    for line in align(rows, right={1}):
        click.echo(line)
    report_other_models(found, "ls")
    if unnamed:
        print_notice(
            f"directories without a CID can still change; `mlflow-ipfs pin add {found.mutable_path}` pins the present state of "
            "the listed directory and prints its CID"
        )


def _list(found: Located) -> list[Entry]:
    entry = found.store.stat(found.cid, found.path)
    return found.store.ls(entry.cid) if entry.is_dir else [entry]


def _size_of(entry: Entry) -> str:
    return "-" if entry.is_dir else format_size(entry.size_bytes)


def _name_of(entry: Entry) -> str:
    return printable(entry.name) + _SUFFIXES.get(entry.kind, "")
