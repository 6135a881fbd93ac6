"""Make a local store of the current format, to be committed: every later version must be able to open it.

::

    python tools/make_store_vector.py DIRECTORY

DIRECTORY, usually ``tests/vectors/store-format-<n>``, must not exist. The store is written to ``store/``, and its
expected content to ``expected.json``. Ids, file names and times in the store differ at each run; contents and CIDs do
not. Never make the store of a released format again.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import random
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow_ipfs.content.files.importer import Imported, Importer, ImportOptions
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import USER, Pin, PinState
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from support.storages import multihashes

if TYPE_CHECKING:
    from mlflow_ipfs.content.profiles import Profile
    from mlflow_ipfs.content.storage.base import Publication
    from mlflow_ipfs.content.storage.local import LocalStorage

TREE: Final = "mlflow"
CHUNK_BYTES: Final = 4096
_SMALL_FILES: Final = 67  # at 1,000 bytes each, more than a publication keeps inline


def make_content(name: str, size_bytes: int) -> bytes:
    """Return bytes that depend only on the name."""
    return random.Random(name).randbytes(size_bytes)  # noqa: S311 - must be reproducible


class Contents:
    """Importer of files that records the expected results."""

    def __init__(self) -> None:
        self.files: list[dict[str, Any]] = []

    def add(self, publication: Publication, name: str, size_bytes: int, profile: Profile = UNIXFS_V1_2025) -> Imported:
        """Import one file of ``size_bytes`` bytes."""
        data = make_content(name, size_bytes)
        with Importer(publication, ImportOptions(replace(profile, chunk_bytes=CHUNK_BYTES))) as importer:
            imported = importer.import_stream(io.BytesIO(data))
        cid = str(imported.link.cid)
        self.files.append({"cid": cid, "size": size_bytes, "sha256": hashlib.sha256(data).hexdigest()})
        return imported


def fill(storage: LocalStorage, contents: Contents) -> None:
    """Store blocks and names of every kind."""
    with storage.publish() as publication:  # an object, one with wrapped leaves, and inline blocks
        model = contents.add(publication, "model", 14_321)
        old = contents.add(publication, "old", 9_999, UNIXFS_V0_2015)
        notes = contents.add(publication, "notes", 300)
        pins = [Pin("run/1", model.link.cid), Pin(USER, old.link.cid), Pin("run/1", notes.link.cid, PinState.PENDING)]
        publication.commit(Changes(pins=pins))
    with storage.publish() as publication:  # a pack
        entries = []
        for number in range(_SMALL_FILES):
            small = contents.add(publication, f"small{number}", 1000)
            path, dag_bytes = f"1/run/artifacts/ä{number:02d}", small.link.size_bytes or 0
            entries.append(MfsEntry(TREE, path, small.link.cid, 1000, dag_bytes, number))
        publication.commit(Changes(entries=entries, frozen=[Frozen(TREE, "1/run/artifacts", model.link.cid)]))
    with storage.publish() as publication:  # content that only a ref keeps
        referred = contents.add(publication, "referred", 700)
        publication.commit()
    storage.refs.set("models/main", model.link.cid, expected_version=0)
    storage.refs.set("models/main", referred.link.cid, expected_version=1)
    with storage.publish() as publication:  # content without a name
        Contents().add(publication, "garbage", 5000)
        publication.commit()


def describe(storage: LocalStorage, contents: Contents) -> dict[str, Any]:
    """Return the content that every later version must find."""
    entries = [
        [entry.root, entry.path, str(entry.cid), entry.size_bytes, entry.dag_bytes, entry.mtime_ns]
        for entry in storage.entries.walk(TREE, "")
    ]
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "store_id": storage.store_id,
        "files": contents.files,
        "pins": sorted([pin.owner, str(pin.cid), pin.state.value] for pin in storage.pins.list()),
        "refs": sorted([ref.name, str(ref.cid), ref.version] for ref in storage.refs.list()),
        "entries": entries,
        "frozen": sorted([frozen.root, frozen.path, str(frozen.cid)] for frozen in storage.entries.list_frozen()),
        "blocks": len(set(multihashes(storage))),
    }


def make_vector(directory: Path) -> None:
    """Make the store and its description.

    Raises:
        FileExistsError: the directory exists.
    """
    directory.mkdir(parents=True)
    contents = Contents()
    with open_local_storage(directory / "store") as storage:
        fill(storage, contents)
        expected = describe(storage, contents)
    (directory / "store" / "reserve").unlink(missing_ok=True)  # 4 MiB of zeros, which opening the store makes again
    for lock in (directory / "store").glob("*.lock"):
        lock.write_bytes(b"")  # remove the process id of the last holder
    lines = [f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in expected.items()]
    (directory / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    make_vector(directory)
    size_bytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    print(f"{directory}: {size_bytes} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
