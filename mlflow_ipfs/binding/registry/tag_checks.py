"""Comparison of the tags of a model version with its content.

The registry store writes these tags once and refuses changes, but programs that write to MLflow's database without it can
change them: stock MLflow on the same database, for example. The version's location is authoritative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_ipfs.binding.registry.content_size import sum_of_file_sizes
from mlflow_ipfs.binding.registry.version_tags import CID_TAG, FROZEN_TAG, SIZE_TAG
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.errors import InvalidCIDError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_ipfs.content.store import ContentStore


def find_wrong_tags(tags: Mapping[str, str], store: ContentStore, root: CID, *, is_frozen: bool) -> list[str]:
    """Return one line for each tag of a model version that contradicts its content.

    Args:
        tags: the tags of the version.
        store: a store with the content of the version.
        root: the CID of the content of the version.
        is_frozen: False if the version's files can change.
    """
    wrong = []
    if CID_TAG in tags and not _is(tags[CID_TAG], root):
        wrong.append(f"the tag {CID_TAG} is {tags[CID_TAG]}, but the content of the version is {root}")
    elif SIZE_TAG in tags and tags[SIZE_TAG] != str(size := sum_of_file_sizes(store, root)):
        wrong.append(f"the tag {SIZE_TAG} is {tags[SIZE_TAG]}, but the files of the version have {size} bytes")
    if CID_TAG in tags and not is_frozen:
        wrong.append(f"the version has the tag {CID_TAG}, but it is not frozen: its files can change")
    if tags.get(FROZEN_TAG) == "false" and is_frozen:
        wrong.append(f"the tag {FROZEN_TAG} is false, but the version is frozen")
    return wrong


def _is(text: str, cid: CID) -> bool:
    try:
        return CID.parse(text) == cid
    except InvalidCIDError:
        return False
