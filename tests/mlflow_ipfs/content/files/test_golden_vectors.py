"""Every golden vector: our CIDs, sizes and blocks are those that Kubo made (tests/vectors/PROVENANCE.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlflow_ipfs.content.checking.verify import verify_dag
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.codecs.dag_cbor import decode_dagcbor, encode_dagcbor
from mlflow_ipfs.content.codecs.unixfs import NodeType
from mlflow_ipfs.content.dag import read_unixfs
from mlflow_ipfs.content.files.chunker import parse_chunker
from mlflow_ipfs.content.files.exporter import Exporter
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.files.node_builder import NodeBuilder
from mlflow_ipfs.content.profiles import PROFILES, UNIXFS_V1_2025
from support.blocks import Blocks, from_dag_json, import_into
from vector_trees import build

VECTORS = Path(__file__).resolve().parents[3] / "vectors"

Vector = dict[str, Any]


def load(name: str) -> list[Vector]:
    document = json.loads((VECTORS / name).read_text())
    assert document["format"] == 1
    return list(document["vectors"])


UNIXFS = load("unixfs.json")
DAGCBOR = load("dagcbor.json")
RESTORABLE = [
    each
    for each in UNIXFS
    if each["profile"] == UNIXFS_V1_2025.name
    and any(
        words in each["name"]
        for words in ("28 leaves", "626 leaves", "six levels", "odd names", "16 slots", "1024 slots")
    )
]


def name_of(vector: Vector) -> str:
    return str(vector["name"])


def options_of(vector: Vector) -> ImportOptions:
    options = vector["options"]
    profile = PROFILES[vector["profile"]]
    profile = replace(
        profile,
        max_links=options.get("max_links", profile.max_links),
        hamt_fanout=options.get("fanout", profile.hamt_fanout),
    )
    return ImportOptions(
        profile=profile,
        chunker=parse_chunker(options["chunker"]) if "chunker" in options else None,
        include_hidden=options.get("hidden", True),
        preserve_mode=options.get("mode", False),
        preserve_mtime=options.get("mtime", False),
    )


def test_there_are_enough_vectors_of_both_profiles() -> None:
    for profile in PROFILES:
        assert sum(each["profile"] == profile for each in UNIXFS) >= 100
    assert len({each["name"] for each in UNIXFS}) == len(UNIXFS)
    assert len({each["cid"] for each in UNIXFS}) > 0.9 * len(UNIXFS), "vectors that all say the same test nothing"


@pytest.mark.parametrize("vector", UNIXFS, ids=name_of)
def test_the_cid_is_the_one_that_kubo_makes(vector: Vector, tmp_path: Path) -> None:
    path = tmp_path / "root"
    build(vector["recipe"], path)
    options = options_of(vector)
    blocks = Blocks() if "block" in vector else None  # the others are only hashed
    with Importer(blocks or HashOnlyPublication(), options) as importer:
        link = importer.import_path(path).link
    if vector["options"].get("wrap"):
        nodes = NodeBuilder((blocks or HashOnlyPublication()).put, options.effective_profile)
        link = nodes.build_directory([replace(link, name=b"root")])
    assert str(link.cid) == vector["cid"]
    assert link.size_bytes == vector["dag_bytes"]
    if blocks is not None:
        assert blocks.get(link.cid).hex() == vector["block"]


@pytest.mark.parametrize("profile", PROFILES)
def test_vectors_lie_on_both_sides_of_the_threshold(profile: str, tmp_path: Path) -> None:
    words = {"unixfs-v1-2025": "folder whose block has", "unixfs-v0-2015": "bytes of names and CIDs"}[profile]
    types: list[NodeType] = []
    for vector in sorted((each for each in UNIXFS if words in each["name"]), key=name_of):
        path = tmp_path / str(len(types))
        build(vector["recipe"], path)
        blocks = Blocks()
        root = import_into(blocks, path, options_of(vector)).link.cid
        assert str(root) == vector["cid"]
        types.append(read_unixfs(blocks, root).data.type)
    assert types == [NodeType.DIRECTORY, NodeType.DIRECTORY, NodeType.HAMT_SHARD]


@pytest.mark.parametrize("vector", RESTORABLE, ids=name_of)
def test_what_kubo_names_alike_can_be_read_back(vector: Vector, tmp_path: Path) -> None:
    path = tmp_path / "root"
    build(vector["recipe"], path)
    blocks = Blocks()
    root = import_into(blocks, path, options_of(vector)).link.cid
    assert verify_dag(blocks, root).problems == []
    restored = tmp_path / "restored"
    Exporter(blocks, allow_outside_links=True).export(root, restored)
    assert import_into(Blocks(), restored, options_of(vector)).link.cid == root


@pytest.mark.parametrize("vector", DAGCBOR, ids=lambda vector: vector["json"][:40])
def test_dag_cbor_is_encoded_and_decoded_as_kubo_does(vector: Vector) -> None:
    value = from_dag_json(json.loads(vector["json"]))
    block = bytes.fromhex(vector["block"])
    CID.parse(vector["cid"]).verify(block)
    assert encode_dagcbor(value) == block
    assert decode_dagcbor(block) == value
