"""Random files and directories for property tests, in the format of the golden vectors (tools/vector_trees.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from vector_trees import Recipe, encode_name

if TYPE_CHECKING:
    from collections.abc import Sequence

_ODD_NAMES = [b"-", b".hidden", b"...", b"\xff", b"a\nb", b"%2F", b"e\xcc\x81", b"\xc3\xa9", b" ", b"\\", b"x" * 255]


def is_possible_name(name: bytes) -> bool:
    """Return whether Linux accepts a name as a file name."""
    return 0 < len(name) <= 255 and name not in (b".", b"..") and not {0, ord("/")} & set(name)


def names() -> st.SearchStrategy[bytes]:
    """Generate file names: plain ones, Unicode, and any bytes that Linux accepts."""
    plain = st.text("abcABC019._-", min_size=1, max_size=8).map(str.encode)
    unicode_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(str.encode)
    any_bytes = st.binary(min_size=1, max_size=12)
    return st.one_of(plain, unicode_names, any_bytes, st.sampled_from(_ODD_NAMES)).filter(is_possible_name)


def targets() -> st.SearchStrategy[bytes]:
    """Generate arbitrary targets of symlinks."""
    return st.binary(min_size=1, max_size=30).filter(lambda target: b"\0" not in target)


def metadata() -> st.SearchStrategy[dict[str, Any]]:
    """Generate modes with all permissions for the owner, and times that every file system supports."""
    modes = st.integers(0, 0o777).map(lambda mode: f"{mode | 0o700:04o}")
    times = st.tuples(st.integers(-2_000_000_000, 2_000_000_000), st.integers(0, 999_999_999)).map(list)
    return st.fixed_dictionaries({}, optional={"mode": modes, "mtime": times})


def files(sizes: Sequence[int], *, with_metadata: bool = False) -> st.SearchStrategy[Recipe]:
    """Generate files of random bytes, or of one repeated byte."""
    rest = metadata() if with_metadata else st.just({})
    size = st.one_of(st.sampled_from(list(sizes)), st.integers(0, max(sizes)))
    seeded = st.builds(lambda size, seed: {"kind": "file", "size": size, "seed": seed}, size, st.sampled_from("abcdef"))
    equal = st.builds(lambda size, byte: {"kind": "file", "size": size, "byte": byte}, size, st.sampled_from([0, 255]))
    return st.builds(lambda file, more: file | more, st.one_of(seeded, equal), rest)


def trees(sizes: Sequence[int], *, with_metadata: bool = False, max_leaves: int = 12) -> st.SearchStrategy[Recipe]:
    """Generate files, symlinks, and directories of them."""

    def symlink(target: bytes, more: dict[str, Any]) -> Recipe:
        times = {"mtime": more["mtime"]} if "mtime" in more else {}  # a symlink has no mode of its own
        return {"kind": "symlink", "target": encode_name(target), **times}

    def directory(entries: dict[bytes, Recipe], more: dict[str, Any]) -> Recipe:
        return {"kind": "directory", "entries": [[encode_name(name), child] for name, child in entries.items()], **more}

    rest = metadata() if with_metadata else st.just({})
    leaves = st.one_of(files(sizes, with_metadata=with_metadata), st.builds(symlink, targets(), rest))
    return st.recursive(
        leaves,
        lambda inner: st.builds(directory, st.dictionaries(names(), inner, max_size=5), rest),
        max_leaves=max_leaves,
    )
