"""Recipes of the golden vectors: trees, the options with which they are added, and dag-cbor values.

See make_vectors.py. The names of the vectors are stored in tests/vectors and must not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vector_trees import Recipe, encode_name

if TYPE_CHECKING:
    from collections.abc import Iterator

V1: Final = "unixfs-v1-2025"
V0: Final = "unixfs-v0-2015"
PROFILES: Final = (V1, V0)
CHUNK_BYTES: Final = {V1: 1 << 20, V0: 256 << 10}
MAX_LINKS: Final = {V1: 1024, V0: 174}
EMPTY: Final[Recipe] = {"kind": "file", "size": 0, "seed": ""}
MTIME: Final = [1_700_000_000, 0]

Vector = dict[str, Any]

DAG_JSON: Final = (
    "null",
    "true",
    "false",
    '""',
    "[]",
    "{}",
    *map(str, (0, 1, 23, 24, 255, 256, 65_535, 65_536, (1 << 32) - 1, 1 << 32, (1 << 63) - 1)),
    *map(str, (-1, -24, -25, -256, -257, -65_536, -65_537, -(1 << 32), -(1 << 32) - 1, -(1 << 63))),
    *("0.5", "-1.5", "1e300", "-0.1", "3.141592653589793", "5e-324"),
    '"text"',
    '"é日本😀"',
    f'"{"long " * 60}"',
    '{"/":{"bytes":"AAEC/w"}}',
    '{"/":{"bytes":""}}',
    '{"/":"bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"}',
    '{"/":"QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n"}',
    '{"bb":1,"a":2,"aaa":3,"b":4,"":5,"é":6,"zz":7,"Z":8}',
    '[1,[2,[3,[4,[]]]],{"a":{"b":{"c":null}}},"x",false]',
    '{"links":[{"/":"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"}],"n":1.25,"raw":{"/":{"bytes":"aGk"}}}',
    f"[{','.join(map(str, range(300)))}]",
    "{" + ",".join(f'"key{number}":{number}' for number in range(30)) + "}",
)


def random_file(size: int, seed: str = "a") -> Recipe:
    """Return the recipe of a file with pseudorandom bytes."""
    return {"kind": "file", "size": size, "seed": seed}


def text_file(text: str, **metadata: Any) -> Recipe:  # noqa: ANN401 - JSON
    """Return the recipe of a text file."""
    return {"kind": "file", "text": text, **metadata}


def symlink(target: bytes, **metadata: Any) -> Recipe:  # noqa: ANN401 - JSON
    """Return the recipe of a symlink."""
    return {"kind": "symlink", "target": encode_name(target), **metadata}


def directory(entries: dict[str, Recipe] | dict[bytes, Recipe], **metadata: Any) -> Recipe:  # noqa: ANN401 - JSON
    """Return the recipe of a directory. Its entries are created on disk in the given order."""
    named = [[encode_name(name.encode() if isinstance(name, str) else name), child] for name, child in entries.items()]
    return {"kind": "folder", "entries": named, **metadata}


def wide_directory(count: int, name: str, each: Recipe = EMPTY, **rest: Any) -> Recipe:  # noqa: ANN401 - JSON
    """Return the recipe of a directory with many files."""
    return {"kind": "folder", "numbered": {"count": count, "name": name, "each": each}, **rest}


def vector(name: str, profile: str, recipe: Recipe, **options: Any) -> Vector:  # noqa: ANN401 - JSON
    """Combine a recipe with the options of its import."""
    return {"name": f"{profile}: {name}", "profile": profile, "options": options, "recipe": recipe}


def describe_files(profile: str) -> Iterator[Vector]:
    """Yield files with sizes around the limits: empty files, lengths of varints, and chunk sizes."""
    chunk = CHUNK_BYTES[profile]
    sizes = [0, 1, 2, 127, 128, 255, 256, 16_383, 16_384, chunk - 1, chunk, chunk + 1]
    sizes += [2 * chunk - 1, 2 * chunk, 2 * chunk + 1, 5 * chunk + 12_345]
    for size in sizes:
        yield vector(f"file of {size} bytes", profile, random_file(size))
    yield vector("text file", profile, text_file("hello\n"))
    yield vector("3 chunks of zeros, one block three times", profile, {"kind": "file", "size": 3 * chunk, "byte": 0})
    for size, chunk_bytes in ((0, 1), (1, 1), (2, 1), (1000, 1000), (100_000, 7919), (3_000_000, 1 << 20)):
        chunker = f"size-{chunk_bytes}"
        yield vector(f"file of {size} bytes, {chunker}", profile, random_file(size), chunker=chunker)


def describe_levels(profile: str) -> Iterator[Vector]:
    """Yield balanced trees with numbers of leaves around the limits of their width."""
    width = MAX_LINKS[profile]
    for leaves in (width - 1, width, width + 1, 2 * width, 2 * width + 1, 3 * width - 1):
        yield vector(f"{leaves} leaves", profile, random_file(leaves * 64 - 5), chunker="size-64")
    yield vector(
        f"{width + 1} equal leaves", profile, {"kind": "file", "size": (width + 1) * 32, "byte": 7}, chunker="size-32"
    )
    for links, leaves in (
        (2, 2),
        (2, 3),
        (2, 4),
        (2, 5),
        (2, 9),
        (2, 16),
        (2, 17),
        (3, 27),
        (3, 28),
        (3, 82),
        (5, 626),
    ):
        name = f"{leaves} leaves, at most {links} links a node"
        yield vector(name, profile, random_file(leaves * 10 - 1), chunker="size-10", max_links=links)


def describe_three_levels_of_v0() -> Iterator[Vector]:
    """Yield trees of three levels with the real width, which is small enough only in the old profile."""
    for leaves in (174 * 174, 174 * 174 + 1):
        yield vector(f"{leaves} leaves, the edge of three levels", V0, random_file(leaves * 8), chunker="size-8")


def describe_directories(profile: str) -> Iterator[Vector]:
    """Yield directories of all shapes, except sharded ones."""
    yield vector("empty folder", profile, directory({}))
    yield vector("folder with an empty folder", profile, directory({"empty": directory({})}))
    yield vector("folder with an empty file", profile, directory({"empty": EMPTY}))
    nested = random_file(10, "leaf")
    for depth in range(40):
        nested = directory({f"d{depth}": nested})
    yield vector("40 folders in each other", profile, nested)
    mixed = directory(
        {"b.txt": text_file("b"), "a": directory({"z": random_file(300_000), "y": EMPTY}), "c": symlink(b"a/z")}
    )
    yield vector("folder with files, a folder and a symlink", profile, mixed)
    yield vector("the same, wrapped", profile, mixed, wrap=True)
    yield vector("one file, wrapped", profile, text_file("wrapped"), wrap=True)
    twice = directory(
        {"one": directory({"f": random_file(1000)}), "two": directory({"f": random_file(1000)}), "f": random_file(1000)}
    )
    yield vector("the same file and folder more than once", profile, twice)
    yield vector("300 files", profile, wide_directory(300, "file-%d", text_file("x")))
    big = CHUNK_BYTES[profile] + 1
    yield vector(
        "folder with files of one, two and three chunks",
        profile,
        directory({"1": random_file(9), "2": random_file(big), "3": random_file(2 * big)}),
    )
    hidden = directory(
        {
            ".hidden": text_file("h"),
            "seen": text_file("s"),
            ".folder": directory({"inside": EMPTY}),
            "folder": directory({".x": EMPTY, "y": EMPTY}),
        }
    )
    yield vector("hidden files, taken in", profile, hidden)
    yield vector("hidden files, left out", profile, hidden, hidden=False)
    yield vector("folder of hidden files only, left out", profile, directory({".a": EMPTY, ".b": EMPTY}), hidden=False)


def describe_names(profile: str) -> Iterator[Vector]:
    """Yield directories with unusual names, which are sorted in byte order."""
    order = ["a", "B", "b", "A", "aa", "a-", "a.", "a/"[:1] + "0", "Z", "_", "~", "!", "ab", "a b"]
    yield vector("upper and lower case, prefixes", profile, directory({name: text_file(name) for name in order}))
    unicode_names = [
        "é",
        "e\u0301",
        "日本語",
        "😀",
        "\ufeff",
        "\uffff",
        "\U00010000",
        "\ue000",
        "ß",
        "\u0131",
        "İ",
        "\u202e",
        "Ω",
        "\u2126",
    ]
    yield vector(
        "Unicode: composed, decomposed, above the BMP",
        profile,
        directory({name: text_file(name) for name in unicode_names}),
    )
    odd = [
        " ",
        "  ",
        "a ",
        " a",
        "a\nb",
        "a\tb",
        "a\rb",
        "\x01",
        "\x7f",
        "\x1b[0m",
        '"',
        "'",
        "\\",
        "a\\b",
        "%",
        "%2F",
        "%00",
    ]
    odd += [
        "?",
        "#",
        "*",
        ":",
        ";",
        "&",
        "|",
        "<",
        ">",
        "-rf",
        "--",
        "...",
        ".. ",
        "CON",
        "nul.txt",
        "@",
        "@bafy",
        "$HOME",
        "`",
    ]
    yield vector(
        "spaces, line ends, quotes, signs that mean something elsewhere", profile, directory(dict.fromkeys(odd, EMPTY))
    )
    not_text = [b"\xff", b"\xff\xfe", b"latin-\xe9", b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"ok"]
    yield vector("names that are not UTF-8", profile, directory(dict.fromkeys(not_text, EMPTY)))
    yield vector("folder whose name is not UTF-8", profile, directory({b"\xfe": directory({b"\xfd": text_file("x")})}))
    yield vector("a name of 255 bytes", profile, directory({"n" * 255: EMPTY, "n" * 254: EMPTY, "é" * 127: EMPTY}))


def describe_symlinks(profile: str) -> Iterator[Vector]:
    """Yield symlinks with targets of all kinds."""
    for name, target in (
        ("symlink to a sibling", b"sibling"),
        ("dangling symlink", b"no/such/thing"),
        ("absolute symlink", b"/etc/hostname"),
        ("symlink upwards", b"../../.."),
        ("symlink that is not UTF-8", b"\xff\xfe/x"),
        ("symlink with odd signs", b" a\nb\t%2F?#"),
        ("long symlink", b"long/" * 200 + b"end"),
    ):
        yield vector(name, profile, symlink(target))
    links = directory(
        {
            "file": text_file("f"),
            "l1": symlink(b"file"),
            "l2": symlink(b"folder"),
            "l3": symlink(b"."),
            "folder": directory({"up": symlink(b"../file")}),
        }
    )
    yield vector("symlinks in folders", profile, links)


def describe_metadata(profile: str) -> Iterator[Vector]:
    """Yield files and directories with modes and times, which also change the form of the leaves."""
    chunk = CHUNK_BYTES[profile]
    for mode in ("0644", "0755", "0600", "0400", "0777", "4755", "1644", "6711"):
        yield vector(f"mode {mode}", profile, text_file("m", mode=mode), mode=True)
    for seconds, nanoseconds in (
        (1_700_000_000, 0),
        (1_700_000_000, 123_456_789),
        (0, 0),
        (0, 1),
        (-1, 0),
        (-2, 500_000_000),
        (2_000_000_000, 999_999_999),
    ):
        yield vector(
            f"mtime {seconds} s {nanoseconds} ns", profile, text_file("t", mtime=[seconds, nanoseconds]), mtime=True
        )
    both = {"mode": "0640", "mtime": [1_700_000_000, 5]}
    for size in (0, 1, 127, chunk - 1, chunk, chunk + 1, 3 * chunk):
        yield vector(f"mode and mtime, {size} bytes", profile, random_file(size) | both, mode=True, mtime=True)
    yield vector(
        "mode and mtime, two levels",
        profile,
        random_file(3000) | both,
        mode=True,
        mtime=True,
        chunker="size-100",
        max_links=7,
    )
    yield vector(
        "mode and mtime of an empty folder",
        profile,
        directory({}, mode="0750", mtime=[1_600_000_000, 7]),
        mode=True,
        mtime=True,
    )
    inside = directory(
        {
            "f": text_file("f", mode="0755", mtime=MTIME),
            "d": directory({"g": text_file("g", mode="0600", mtime=[1, 1])}, mode="0711", mtime=[2, 2]),
            "l": symlink(b"f", mtime=[3, 3]),
        },
        mode="0755",
        mtime=[4, 4],
    )
    for options in ({"mode": True}, {"mtime": True}, {"mode": True, "mtime": True}):
        yield vector(f"folder with {' and '.join(options)}", profile, inside, **options)
    yield vector("symlink with mtime", profile, symlink(b"x", mtime=[1_700_000_000, 9]), mode=True, mtime=True)


def describe_threshold_of_v1() -> Iterator[Vector]:
    """Yield directories around the threshold of the block size.

    The block has 4 + 2620 * 100 + 2 * length + … bytes, which is 262144 with a name of 95 bytes.
    """
    for length in (94, 95, 96):
        recipe = wide_directory(2620, "%056d", entries=[["x" * length, EMPTY]])
        yield vector(f"folder whose block has {262_144 - 95 + length} bytes", V1, recipe)
    for length in (90, 91, 92):  # the mode takes three bytes of the block, and wrapped leaves have the same CID length
        recipe = wide_directory(
            2620, "%056d", text_file("", mode="0644"), entries=[["x" * length, text_file("", mode="0644")]], mode="0755"
        )
        yield vector(f"folder with a mode near the threshold, last name of {length} bytes", V1, recipe, mode=True)


def describe_threshold_of_v0() -> Iterator[Vector]:
    """Yield directories around the threshold of the size of names and CIDs: 4096 * (30 + 34) = 262144 bytes."""
    for length in (29, 30, 31):
        recipe = wide_directory(4095, "%030d", entries=[["x" * length, EMPTY]])
        yield vector(f"folder with {262_144 - 30 + length} bytes of names and CIDs", V0, recipe)
    recipe = wide_directory(
        4095, "%030d", text_file("", mode="0644"), entries=[["x" * 30, text_file("", mode="0644")]], mode="0755"
    )
    yield vector("folder with modes at the threshold", V0, recipe, mode=True)


def describe_shards(profile: str) -> Iterator[Vector]:
    """Yield sharded directories: many names, deep shards, other fanouts, and metadata on the root shard only."""
    long_name = "%0240d"
    yield vector("sharded folder of 6000 files", profile, wide_directory(6000, "f%05d-of-six-thousand-files"))
    yield vector("sharded folder of 1200 long names", profile, wide_directory(1200, long_name))
    deep = [["c2132100", text_file("one")], ["c1048021", text_file("two")]]  # their hashes begin with the same 40 bits
    yield vector("six levels of shards", profile, wide_directory(1200, long_name, entries=deep))
    for fanout in (8, 16, 64, 512, 1024):
        recipe = wide_directory(1200, long_name, entries=deep)
        yield vector(f"shards of {fanout} slots", profile, recipe, fanout=fanout)
    odd = [
        [encode_name(name), text_file("o")] for name in (b"\xff\xfe", "é".encode(), b"a\nb", b" ", b"00", b"FF", b"A")
    ]
    yield vector("sharded folder with odd names", profile, wide_directory(1200, long_name, entries=odd))
    inner = wide_directory(1100, long_name)
    entries = [
        ["folder", directory({"f": text_file("f")})],
        ["link", symlink(b"folder")],
        ["big", random_file(CHUNK_BYTES[profile] + 1)],
        ["shards", inner],
    ]
    yield vector(
        "sharded folder with folders, a symlink and another sharded folder",
        profile,
        wide_directory(1100, long_name, entries=entries),
    )
    each = text_file("", mode="0600", mtime=MTIME)
    yield vector(
        "sharded folder with mode and mtime",
        profile,
        wide_directory(1200, long_name, each, mode="0700", mtime=[9, 9]),
        mode=True,
        mtime=True,
    )


def describe_all() -> Iterator[Vector]:
    """Yield every vector, without the results of Kubo."""
    for profile in PROFILES:
        for describe in (
            describe_files,
            describe_levels,
            describe_directories,
            describe_names,
            describe_symlinks,
            describe_metadata,
            describe_shards,
        ):
            yield from describe(profile)
    yield from describe_three_levels_of_v0()
    yield from describe_threshold_of_v1()
    yield from describe_threshold_of_v0()
