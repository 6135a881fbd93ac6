"""``pin``: add, remove and list pins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.binding.locations import IpfsPath
from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    report_other_models,
    shared_options,
    text_of,
    tracking_option,
)
from mlflow_ipfs.cli.root_names import MODEL_VERSION_PREFIX, version_of
from mlflow_ipfs.cli.terminal import align, format_size, format_time, print_notice, print_result, printable
from mlflow_ipfs.content.names.pin_labels import find_label, read_labels
from mlflow_ipfs.content.names.pins import USER, Pin
from mlflow_ipfs.errors import MlflowIpfsError, NotFoundError, PolicyError

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName
    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.names.pin_labels import PinLabel
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
    change; the pin keeps their present state. The pin remembers the name, for `pin ls` and `pin rm`.

    Every client of a server with this store that knows the CID can then register a model version of the content, and
    so read it.
    """
    with cli_context.open_store() as store:
        for content in contents:
            found = find(store, content, tracking_uri)
            text = text_of(content)
            remembered = "" if text == str(found.cid) else text
            if found.mutable_path is not None:
                root = store.pin_files(found.mutable_path, name=remembered)
            else:
                root = found.root
                store.pin(root, name=remembered or _label_of(store, root))
            name = "" if isinstance(content, IpfsPath) else f"{printable(text)}  "
            models = [model.model_id for model in found.other_models]
            fields = {"content": text, "cid": str(root), "owner": USER, "other_models": models}
            print_result(fields, f"pinned  {name}{root}", as_json=as_json)
            if not as_json:
                report_other_models(found, "pin add")
    if not as_json:
        print_notice(READABLE_NOTICE)


def _label_of(store: ContentStore, cid: CID) -> str:
    """Return the name that the user's pin of a CID remembers: pinning the bare CID again does not forget it."""
    return find_label(read_labels(store.storage.notes), Pin(USER, cid)).name


@pin.command("rm")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@click.option("--owner", default=USER, show_default=True, help="Owner of the pin, as `pin ls` shows it.")
@click.option("--force", is_flag=True, help="Remove even the pin of a model version.")
@tracking_option
@json_option
@pass_cli_context
def remove(
    cli_context: CliContext,
    contents: tuple[ContentName, ...],
    owner: str,
    tracking_uri: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Remove a pin. A later gc removes the content, unless another pin or name retains it.

    CONTENT is a CID, or the name that was pinned. The artifacts of a run or an mfs:// path may have changed since: their
    name removes every pin that was added under this name.
    """
    if owner.startswith(MODEL_VERSION_PREFIX) and not force:
        msg = f"the pin of {owner!r} keeps a model version loadable; delete the version in MLflow, or use --force"
        raise PolicyError(msg)
    with cli_context.open_store() as store:
        for content in contents:
            for root in _find_pinned(store, content, owner, tracking_uri):
                if not store.unpin(root, owner):
                    raise _not_pinned(store, content, root, owner)
                print_result({"cid": str(root), "owner": owner}, f"unpinned  {root}", as_json=as_json)


def _find_pinned(store: ContentStore, content: ContentName, owner: str, tracking_uri: str | None) -> list[CID]:
    """Return the CIDs that a name was pinned as; for a name that cannot change, else its CID."""
    if isinstance(content, IpfsPath):
        return [content.cid if not content.path else store.resolve(content.cid, content.path)]
    named = [found.cid for found in _pins_named(store, text_of(content)) if found.owner == owner]
    if named:
        return named
    text = text_of(content)
    found = find(store, content, tracking_uri)
    if found.mutable_path is not None:
        msg = f"{text} can change, and no pin of {owner!r} was added under this name; name the CID, as `mlflow-ipfs pin ls` shows it"
        raise NotFoundError(msg)
    return [found.root]


def _pins_named(store: ContentStore, name: str) -> list[Pin]:
    labels = read_labels(store.storage.notes)
    return [found for found in store.pins.list() if find_label(labels, found).name == name]


def _not_pinned(store: ContentStore, content: ContentName, root: CID, owner: str) -> NotFoundError | PolicyError:
    others = _owners(store, root)
    if others:
        return PolicyError(
            f"{text_of(content)} is not pinned by {owner!r} but by {others}; name the owner with --owner"
        )
    above = _owners(store, content.cid) if isinstance(content, IpfsPath) and content.path else ""
    if above and isinstance(content, IpfsPath):
        return NotFoundError(
            f"{text_of(content)} is not pinned itself: it is part of {content.cid}, which is pinned by {above}; to "
            f"release it, unpin {content.cid}"
        )
    return NotFoundError(f"{text_of(content)} is not pinned; `mlflow-ipfs pin ls` lists all pins")


def _owners(store: ContentStore, cid: CID) -> str:
    return ", ".join(repr(found.owner) for found in store.pins.list(cid=cid))


@pin.command("ls")
@click.argument("content", required=False, type=ANY_CONTENT)
@click.option("--owner", default="", metavar="PREFIX", help="List only pins of owners that start with PREFIX.")
@tracking_option
@json_option
@pass_cli_context
def list_pins(
    cli_context: CliContext, content: ContentName | None, owner: str, tracking_uri: str | None, *, as_json: bool
) -> None:
    """List pins: CID, state, owner, size, when the pin was added, and the name that was added.

    The size is that of all blocks below the CID, as its root block states it. Pins of model versions have the name and
    the number of the version.
    """
    with cli_context.open_store() as store:
        pins = list(store.pins.list(owner_prefix=owner))
        if content is not None:
            cids = {found.cid for found in _pins_named(store, text_of(content))}
            cids = cids or {find(store, content, tracking_uri).root}
            pins = [found for found in pins if found.cid in cids]
        labels = read_labels(store.storage.notes)
        listed = [_ListedPin(found, find_label(labels, found), _size_bytes(store, found.cid)) for found in pins]
    if as_json:
        for one in listed:
            print_result(one.fields, "", as_json=True)
        return
    for line in align((one.cells for one in listed), right={3}):
        click.echo(line)


@dataclass(frozen=True, slots=True)
class _ListedPin:
    """One line of ``pin ls``."""

    pin: Pin
    label: PinLabel
    size_bytes: int | None

    @property
    def name(self) -> str:
        return self.label.name or version_of(self.pin.owner) or ""

    @property
    def fields(self) -> dict[str, str | int | None]:
        return {
            "cid": str(self.pin.cid),
            "owner": self.pin.owner,
            "state": str(self.pin.state),
            "name": self.name,
            "added_at": self.label.added_at,
            "size_bytes": self.size_bytes,
        }

    @property
    def cells(self) -> tuple[str, ...]:
        size = "-" if self.size_bytes is None else format_size(self.size_bytes)
        cells = (str(self.pin.cid), str(self.pin.state), printable(self.pin.owner), size)
        return *cells, format_time(self.label.added_at), printable(self.name) or "-"


def _size_bytes(store: ContentStore, cid: CID) -> int | None:
    """Return the size that a root block states; None if it cannot be read, or is not UnixFS."""
    try:
        return store.dag_size(cid)
    except (MlflowIpfsError, OSError):
        return None
