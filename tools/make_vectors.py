"""Make ``tests/vectors/unixfs.json`` and ``dagcbor.json`` again: the recipes and the CIDs that Kubo computes for them.

::

    python tools/make_vectors.py [--kubo PATH-OF-IPFS] [--check]

Without ``--kubo``, it uses the binary that ``provision_kubo.py`` finds or makes. With ``--check``, it writes nothing
and fails if a CID differs. The expected values come only from Kubo: this package is not imported here.
``tests/vectors/PROVENANCE.md`` describes the format of the files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from provision_kubo import locate
from vector_recipes import DAG_JSON, PROFILES, V1, Vector, describe_all
from vector_trees import build

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT: Final = 1
VECTORS: Final = Path(__file__).resolve().parent.parent / "tests" / "vectors"
TIMEOUT_SECONDS: Final = 300
MAX_BLOCK_SHOWN: Final = 256


class Kubo:
    """Temporary repositories, one for each profile."""

    def __init__(self, binary: Path, work: Path) -> None:
        self._binary = binary
        self._work = work
        for profile in PROFILES:
            self.run(profile, "init", f"--profile={profile},test")

    def run(self, profile: str, *arguments: str | Path, stdin: bytes = b"") -> bytes:
        """Run one command and return its output."""
        environment = {"IPFS_PATH": str(self._work / profile), "HOME": str(self._work), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [self._binary, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode:
            msg = f"ipfs {' '.join(map(str, arguments))}: {done.stderr.decode(errors='replace')}"
            raise RuntimeError(msg)
        return done.stdout

    def add(self, made: Vector, path: Path) -> Vector:
        """Add a path with the options of a vector. Return the vector with the results of Kubo."""
        profile = made["profile"]
        # The blocks are stored, because with --only-hash and --preserve-*, Kubo prints wrong CIDs for directories.
        command = ["add", "--quieter", "--recursive", "--pin=false", *_flags(profile, made["options"])]
        cid = self.run(profile, *command, path).decode().strip()
        cumulative = self.run(profile, "files", "stat", "--format=<cumulsize>", f"/ipfs/{cid}")
        found = made | {"cid": cid, "dag_bytes": int(cumulative)}
        block = self.run(profile, "block", "get", cid)
        return found | {"block": block.hex()} if len(block) <= MAX_BLOCK_SHOWN else found

    def put_dagcbor(self, text: str) -> dict[str, str]:
        """Store dag-json as dag-cbor. Return a vector."""
        command = ["dag", "put", "--input-codec=dag-json", "--store-codec=dag-cbor", "--pin=false"]
        cid = self.run(V1, *command, stdin=text.encode()).decode().strip()
        return {"json": text, "cid": cid, "block": self.run(V1, "block", "get", cid).hex()}


def _flags(profile: str, options: dict[str, Any]) -> Iterator[str]:
    if options.get("hidden", True):
        yield "--hidden"
    if options.get("wrap"):
        yield "--wrap-with-directory"
    for option, flag in (("chunker", "--chunker"), ("max_links", "--max-file-links"), ("fanout", "--max-hamt-fanout")):
        if option in options:
            yield f"{flag}={options[option]}"
    metadata = [option for option in ("mode", "mtime") if options.get(option)]
    yield from (f"--preserve-{option}" for option in metadata)
    if metadata and profile == V1:
        yield "--raw-leaves=false"  # otherwise Kubo refuses, because a raw leaf cannot contain metadata


def make_unixfs(kubo: Kubo, work: Path) -> Iterator[Vector]:
    """Build each recipe in a separate directory and add it with Kubo."""
    for number, made in enumerate(describe_all()):
        directory = work / f"tree-{number}"
        directory.mkdir()
        path = directory / "root"
        build(made["recipe"], path)
        yield kubo.add(made, path)
        if sys.stderr.isatty():
            print(f"\r{number + 1} vectors", end="", file=sys.stderr, flush=True)


def dump(vectors: list[Vector], version: str) -> str:
    """Return vectors as JSON, one per line, so that a diff shows which vectors changed."""
    lines = ",\n".join(json.dumps(each, sort_keys=True) for each in vectors)
    return f'{{"format": {FORMAT}, "kubo": {json.dumps(version)}, "vectors": [\n{lines}\n]}}\n'


def make_all(binary: Path) -> dict[str, str]:
    """Make every file of vectors. Return their texts by name."""
    with tempfile.TemporaryDirectory(prefix="mlflow-ipfs-vectors-") as work:
        kubo = Kubo(binary, Path(work))
        version = kubo.run(V1, "version", "--number").decode().strip()
        unixfs = list(make_unixfs(kubo, Path(work)))
        dagcbor = [kubo.put_dagcbor(text) for text in DAG_JSON]
    return {"unixfs.json": dump(unixfs, version), "dagcbor.json": dump(dagcbor, version)}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubo", type=Path, help="the ipfs binary to use")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything differs")
    arguments = parser.parse_args()
    different = []
    for name, text in make_all(arguments.kubo or locate()).items():
        path = VECTORS / name
        if not path.exists() or path.read_text() != text:
            different.append(name)
        if not arguments.check:
            path.write_text(text)
    print(f"{'different' if arguments.check else 'changed'}: {', '.join(different) or 'nothing'}")
    return int(arguments.check and bool(different))


if __name__ == "__main__":
    sys.exit(main())
