"""``cid``: print the CID of a model version, a run, a mutable path or a path in content."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlflow_ipfs.cli.options import (
    ANY_CONTENT,
    CliContext,
    find,
    json_option,
    pass_cli_context,
    report_other_models,
    text_of,
    tracking_option,
)
from mlflow_ipfs.cli.terminal import print_notice, print_result

if TYPE_CHECKING:
    from mlflow_ipfs.binding.uris import ContentName


@click.command(short_help="Print the CID of a model version, a run or a path.")
@click.argument("contents", metavar="CONTENT...", nargs=-1, required=True, type=ANY_CONTENT)
@tracking_option
@json_option
@pass_cli_context
def cid(cli_context: CliContext, contents: tuple[ContentName, ...], tracking_uri: str | None, *, as_json: bool) -> None:
    """Print the CID of each CONTENT, one a line.

    An mfs:// path and the artifacts of a run can still change: the CID is that of their present state, which the store
    keeps under this CID only after `pin add`.
    """
    with cli_context.open_store() as store:
        for content in contents:
            found = find(store, content, tracking_uri)
            root = found.root
            is_stored = store.has(root)
            fields = {
                "content": text_of(content),
                "cid": str(root),
                "mutable": found.mutable_path is not None,
                "stored": is_stored,
                "other_models": [model.model_id for model in found.other_models],
            }
            print_result(fields, str(root), as_json=as_json)
            if as_json:
                continue
            report_other_models(found, "cid")
            if not is_stored:
                text = text_of(content)
                print_notice(
                    f"{text} can still change; `mlflow-ipfs pin add {text}` keeps its present state under this CID"
                )
