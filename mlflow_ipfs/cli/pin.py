"""``pin``: what is kept, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_ipfs.binding.locations import IpfsPath
from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    shared_options,
    text_of,
    tracking_option,
)
from mlflow_ipfs.cli.root_names import OWNERS
from mlflow_ipfs.cli.terminal import align, print_result, printable
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.errors import NotFoundError, PolicyError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore


@click.group()
@shared_options
def pin() -> None:
    """Keep content, or stop keeping it.

    A pin is an owner's promise to keep a CID. Pins made by hand belong to `user`, those of model
    versions to `model-version:…`. Content goes with gc when nobody pins it any more.
    """


@pin.command("add")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def add(cli_context: CliContext, contents: tuple[ContentName, ...], tracking_uri: str | None, *, as_json: bool) -> None:
    """Pin content, after a look whether all of it is here.

    Prints a line for each, which ends with its CID. What can still change, an mfs:// path or the artifacts of a run, is pinned as it is now.
    """
    with cli_context.open_store() as store:
        for content in contents:
            found = find(store, content, tracking_uri)
            if found.mutable_path is not None:
                root = store.pin_files(found.mutable_path)
            else:
                root = found.root
                store.pin(root)
            name = "" if isinstance(content, IpfsPath) else f"{printable(text_of(content))}  "
            fields = {"content": text_of(content), "cid": str(root), "owner": USER}
            print_result(fields, f"pinned  {name}{root}", as_json=as_json)


@pin.command("rm")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=CONTENT)
@click.option("--owner", default=USER, show_default=True, help="Whose pin, as `pin ls` shows it.")
@click.option("--force", is_flag=True, help="Drop even the pin of a model version.")
@json_option
@pass_cli_context
def remove(cli_context: CliContext, contents: tuple[IpfsPath, ...], owner: str, *, force: bool, as_json: bool) -> None:
    """Drop a pin. The bytes go with the next gc, unless another pin keeps them."""
    if owner.startswith(OWNERS) and not force:
        msg = f"{owner!r} keeps a model version loadable; delete the version in MLflow instead, or add --force"
        raise PolicyError(msg)
    with cli_context.open_store() as store:
        for content in contents:
            root = content.cid if not content.path else store.resolve(content.cid, content.path)
            if not store.pins.remove(root, owner):
                raise _not_pinned(store, content, root, owner)
            print_result({"cid": str(root), "owner": owner}, f"unpinned  {root}", as_json=as_json)


def _not_pinned(store: ContentStore, content: IpfsPath, root: CID, owner: str) -> NotFoundError | PolicyError:
    others = _owners(store, root)
    if others:
        return PolicyError(f"{text_of(content)} is not pinned by {owner!r} but by {others}; name that with --owner")
    above = _owners(store, content.cid) if content.path else ""
    if above:
        return NotFoundError(
            f"{text_of(content)} is not pinned itself: it is part of {content.cid}, which is pinned by {above}, and is "
            "kept with it"
        )
    return NotFoundError(f"{text_of(content)} is not pinned")


def _owners(store: ContentStore, cid: CID) -> str:
    return ", ".join(repr(found.owner) for found in store.pins.list(cid=cid))


@pin.command("ls")
@click.argument("content", required=False, type=CONTENT)
@click.option("--owner", default="", metavar="PREFIX", help="Only owners that start like this.")
@json_option
@pass_cli_context
def list_pins(cli_context: CliContext, content: IpfsPath | None, owner: str, *, as_json: bool) -> None:
    """List pins: CID, state, owner."""
    with cli_context.open_store() as store:
        cid = store.resolve(content.cid, content.path) if content is not None else None
        pins = list(store.pins.list(owner_prefix=owner, cid=cid))
    if as_json:
        for found in pins:
            print_result(_fields(found), "", as_json=True)
        return
    for line in align((str(found.cid), str(found.state), printable(found.owner)) for found in pins):
        click.echo(line)


def _fields(found: Pin) -> dict[str, str]:
    return {"cid": str(found.cid), "owner": found.owner, "state": str(found.state)}
