"""``verify``: check content against its CID."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mlflow_ipfs.binding.uris import MlflowUri
from mlflow_ipfs.cli.get import total_bytes
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
from mlflow_ipfs.cli.root_names import affected_fields, affected_lines
from mlflow_ipfs.cli.terminal import Progress, format_count, format_size, print_notice, print_result, printable
from mlflow_ipfs.content.files.source import stat_source
from mlflow_ipfs.errors import IntegrityError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlflow_ipfs.binding.uris import ContentName, Located
    from mlflow_ipfs.content.checking.verify import VerifyReport

_MAX_DIFFERENCES: Final = 10  # of a wrong directory, every file is different
_ADDED_BY_MLFLOW: Final = ("registered_model_meta",)  # MLflow writes it into each downloaded model version


@click.command(short_help="Check content against its CID.")
@click.argument("content", type=ANY_CONTENT)
@click.option(
    "--against",
    metavar="PATH",
    type=click.Path(readable=False, path_type=Path),
    help="Also compare the content with a file or directory.",
)
@click.option(
    "-H",
    "--hidden",
    is_flag=True,
    help="With --against: also compare hidden entries of directories, whose names start with a dot.",
)
@tracking_option
@json_option
@pass_cli_context
def verify(
    cli_context: CliContext,
    content: ContentName,
    against: Path | None,
    tracking_uri: str | None,
    *,
    hidden: bool,
    as_json: bool,
) -> None:
    """Read and hash every block of a file, a directory, a model version or a run's artifacts.

    Lists each damaged or missing block with the path of its file. Without --against, it also lists every name in the
    store that needs such a block. The tags of a model version are compared with its content.
    """
    if against is not None:
        stat_source(bytes(against))
    elif hidden:
        msg = "--hidden requires --against"
        raise click.UsageError(msg)
    with cli_context.open_store() as store:
        found = find(store, content, tracking_uri)
        report = _verify(found, against, _ADDED_BY_MLFLOW if isinstance(content, MlflowUri) else (), hidden=hidden)
        wrong_tags = _find_wrong_tags(content, found, tracking_uri)
        damaged = {problem.cid: None for problem in report.problems} if against is None else {}
        affected = store.find_affected(list(damaged)).names if damaged else ()
    fields = _fields(report, content) | {
        "affected": [affected_fields(name) for name in affected],
        "other_models": [model.model_id for model in found.other_models],
    }
    fields |= {"ok": report.ok and not wrong_tags, "wrong_tags": wrong_tags}
    lines = [*_lines(report, content, against), *affected_lines(affected)]
    lines += [f"problem   {printable(line)}" for line in wrong_tags]
    print_result(fields, "\n".join(lines), as_json=as_json)
    if not as_json:
        report_other_models(found, "verify")
    if report.hidden_left_out and not as_json:
        skipped = format_count(report.hidden_left_out, "hidden entry")
        print_notice(f"skipped {skipped} in {printable(str(against))}, not in the content; use --hidden to compare")
    if not report.ok:
        msg = f"verification of {report.cid} failed: {format_count(len(report.problems), 'problem')} found"
        raise IntegrityError(msg)
    if wrong_tags:
        msg = (
            f"the content of {text_of(content)} is intact, but the version has {format_count(len(wrong_tags), 'wrong tag')}: "
            "trust the CID above, and find out which program changed the tags"
        )
        raise IntegrityError(msg)


def _find_wrong_tags(content: ContentName, found: Located, tracking_uri: str | None) -> list[str]:
    if not isinstance(content, MlflowUri) or not content.text.startswith("models:"):
        return []
    from mlflow_ipfs.binding.mlflow_names import read_version_tags  # noqa: PLC0415 - imports MLflow
    from mlflow_ipfs.binding.registry.tag_checks import find_wrong_tags  # noqa: PLC0415

    tags = read_version_tags(content.text, tracking_uri)
    return find_wrong_tags(tags, found.store, found.root, is_frozen=found.mutable_path is None)


def _verify(found: Located, against: Path | None, not_content: Collection[str], *, hidden: bool) -> VerifyReport:
    root = found.root
    try:
        total = total_bytes(found)
    except (MlflowIpfsError, OSError):  # damaged or not UnixFS, which the report states
        total = None
    with Progress(f"verifying {root}", total) as progress:
        return found.store.verify(
            root, against=against, hidden=hidden, not_content=not_content, progress=progress.advance
        )


def _fields(report: VerifyReport, content: ContentName) -> dict[str, object]:
    problems = [{"cid": str(item.cid), "path": item.path, "reason": item.reason} for item in report.problems]
    return {
        "content": text_of(content),
        "cid": str(report.cid),
        "ok": report.ok,
        "blocks": report.blocks,
        "size_bytes": report.size_bytes,
        "problems": problems,
        "hidden_left_out": report.hidden_left_out,
    }


def _lines(report: VerifyReport, content: ContentName, against: Path | None) -> list[str]:
    lines = []
    if text_of(content) != str(report.cid):
        lines.append(f"content   {printable(text_of(content))}")
    lines.append(f"root      {report.cid}")
    lines.append(f"intact    {format_count(report.blocks, 'block')}, {format_size(report.size_bytes)}")
    shown = len(report.problems) if against is None else _MAX_DIFFERENCES
    for problem in report.problems[:shown]:
        lines += [f"problem   {problem.cid}", f"          in {printable(problem.path) or 'the root'}: {problem.reason}"]
    if len(report.problems) > shown:
        lines.append(f"problem   {len(report.problems) - shown:,} more; see --json")
    if report.ok:
        same = f"; identical to {printable(str(against))}" if against is not None else ""
        lines.append(f"verified  every block{same}")
    return lines
