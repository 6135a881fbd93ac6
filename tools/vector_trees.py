"""Builder of the files and directories that the recipe of a golden vector describes.

A recipe is JSON. The same recipe gives the same bytes, names, modes and times on every machine:

- file: ``{"kind": "file", "size": N, "seed": "text"}`` is the first N bytes of SHAKE-256 of the
  seed's UTF-8; ``{"kind": "file", "size": N, "byte": B}`` is one byte N times; ``{"kind": "file",
  "text": "…"}`` is that text in UTF-8.
- symlink: ``{"kind": "symlink", "target": NAME}``.
- directory: ``{"kind": "directory", "entries": [[NAME, recipe], …]}``; a directory with many files also has
  ``"numbered": {"count": N, "name": "f%04d", "each": recipe}``. The committed vectors have the kind ``"folder"``,
  which means the same.
- NAME is text, or ``{"base64": "…"}`` for bytes that are not UTF-8.
- Each of these may have ``"mode": "0644"`` (octal) and ``"mtime": [seconds, nanoseconds]``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Recipe = dict[str, Any]

NANOSECONDS = 1_000_000_000


def encode_name(name: bytes) -> str | dict[str, str]:
    """Return a name in the form used in recipes."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(name).decode()}


def decode_name(name: str | dict[str, str]) -> bytes:
    """Return the bytes of a name in a recipe."""
    return name.encode() if isinstance(name, str) else base64.b64decode(name["base64"])


def file_bytes(recipe: Recipe) -> bytes:
    """Return the content of a file."""
    if "text" in recipe:
        return str(recipe["text"]).encode()
    size_bytes = int(recipe["size"])
    if "byte" in recipe:
        return bytes((recipe["byte"],)) * size_bytes
    return hashlib.shake_256(recipe["seed"].encode()).digest(size_bytes)


def entries_of(recipe: Recipe) -> Iterator[tuple[bytes, Recipe]]:
    """Yield the name and the recipe of each entry of a directory."""
    for name, child in recipe.get("entries", ()):
        yield decode_name(name), child
    numbered = recipe.get("numbered")
    if numbered:
        for number in range(numbered["count"]):
            yield (numbered["name"] % number).encode(), numbered["each"]


def build(recipe: Recipe, target: Path | bytes) -> None:
    """Create the file, symlink or directory of a recipe. The target must not exist."""
    path = os.fsencode(target)
    if recipe["kind"] == "file":
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(file_bytes(recipe))
    elif recipe["kind"] == "symlink":
        os.symlink(decode_name(recipe["target"]), path)
    else:
        os.mkdir(path)
        for name, child in entries_of(recipe):
            build(child, os.path.join(path, name))
    _set_metadata(recipe, path)  # done last, because creating entries changes the time of a directory


def _set_metadata(recipe: Recipe, path: bytes) -> None:
    if "mode" in recipe:
        mode = int(recipe["mode"], 8)
        os.chmod(path, mode)
        if stat.S_IMODE(os.lstat(path).st_mode) != mode:
            msg = f"this file system does not keep mode {recipe['mode']} of {os.fsdecode(path)!r}"
            raise OSError(msg)
    if "mtime" in recipe:
        seconds, nanoseconds = recipe["mtime"]
        mtime_ns = seconds * NANOSECONDS + nanoseconds
        os.utime(path, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        if os.lstat(path).st_mtime_ns != mtime_ns:
            msg = f"this file system does not keep the time {recipe['mtime']} of {os.fsdecode(path)!r}"
            raise OSError(msg)
