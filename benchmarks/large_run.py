"""Run with 100,000 artifacts: 100 directories of 1,000 files, in a store and, for peers, on disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import MfsEntry
from mlflow_ipfs.content.storage.base import Changes

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow_ipfs.content.store import ContentStore

DIRECTORIES, FILES_EACH = 100, 1_000
RUN = "0/9f2c1e/artifacts"


def put_large_run(store: ContentStore, root: str) -> None:
    """Put the entries of the whole run in one publication. Every file has 16 unique bytes."""
    entries: list[MfsEntry] = []
    with store.storage.publish() as publication:
        for directory in range(DIRECTORIES):
            for file in range(FILES_EACH):
                data = content_of(directory, file)
                cid = CID.of(data)
                publication.put(cid, data)
                path = f"{RUN}/{directory:03}/file-{file:04}.bin"
                entries.append(MfsEntry(root, path, cid, len(data), len(data), time.time_ns()))
        publication.commit(Changes(entries=entries))


def make_large_directory(directory: Path) -> None:
    """Write one of the directories of the run to disk."""
    directory.mkdir(parents=True)
    for file in range(FILES_EACH):
        (directory / f"file-{file:04}.bin").write_bytes(content_of(0, file))


def content_of(directory: int, file: int) -> bytes:
    """Return the bytes of one file."""
    return b"%07d-%07d\n" % (directory, file)
