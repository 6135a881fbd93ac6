"""``pin``: add, remove and list pins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
from mlflow_ipfs.cli.root_names import MODEL_VERSION_PREFIX
from mlflow_ipfs.cli.terminal import align, print_notice, print_result, printable
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.errors import NotFoundError, PolicyError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore


READABLE_NOTICE: Final = (
    "from now on, every client of a server with this store that knows the CID can register the content as a model and so "
    "read it"
)


@click.group()
@shared_options
def pin() -> None:
    """Add, remove and list pins.

    A pin keeps a CID and everything below it on behalf of an owner. Pins that are added by hand belong to `user`,
    pins of model versions to `model-version:…`. Content without a pin or another name is removed by gc.
    """


@pin.command("add")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def add(cli_context: CliContext, contents: tuple[ContentName, ...], tracking_uri: str | None, *, as_json: bool) -> None:
    """Pin content, if all of its blocks are in the store.

    Prints one line for each CONTENT, which ends with its CID. An mfs:// path or the artifacts of a run can still
    change; the pin keeps their present state.

    Every client of a server with this store that knows the CID can then register a model version of the content, and
    so read it.
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
    if not as_json:
        print_notice(READABLE_NOTICE)


@pin.command("rm")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=CONTENT)
@click.option("--owner", default=USER, show_default=True, help="Owner of the pin, as `pin ls` shows it.")
@click.option("--force", is_flag=True, help="Remove even the pin of a model version.")
@json_option
@pass_cli_context
def remove(cli_context: CliContext, contents: tuple[IpfsPath, ...], owner: str, *, force: bool, as_json: bool) -> None:
    """Remove a pin. A later gc removes the content, unless another pin or name retains it."""
    if owner.startswith(MODEL_VERSION_PREFIX) and not force:
        msg = f"the pin of {owner!r} keeps a model version loadable; delete the version in MLflow, or use --force"
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
        return PolicyError(
            f"{text_of(content)} is not pinned by {owner!r} but by {others}; name the owner with --owner"
        )
    above = _owners(store, content.cid) if content.path else ""
    if above:
        return NotFoundError(
            f"{text_of(content)} is not pinned itself: it is part of {content.cid}, which is pinned by {above}; to "
            f"release it, unpin {content.cid}"
        )
    return NotFoundError(f"{text_of(content)} is not pinned; `mlflow-ipfs pin ls` lists all pins")


def _owners(store: ContentStore, cid: CID) -> str:
    return ", ".join(repr(found.owner) for found in store.pins.list(cid=cid))


@pin.command("ls")
@click.argument("content", required=False, type=CONTENT)
@click.option("--owner", default="", metavar="PREFIX", help="List only pins of owners that start with PREFIX.")
@json_option
@pass_cli_context
def list_pins(cli_context: CliContext, content: IpfsPath | None, owner: str, *, as_json: bool) -> None:
    """List pins: CID, state and owner."""
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
