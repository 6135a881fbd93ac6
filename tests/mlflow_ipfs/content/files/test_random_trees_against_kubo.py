"""Whatever lies on disk, our CIDs are Kubo's: random trees, many in each call of a live Kubo."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlflow_ipfs.content.files.chunker import FixedSizeChunker
from mlflow_ipfs.content.files.hash_only import HashOnlyPublication
from mlflow_ipfs.content.files.importer import Importer, ImportOptions
from mlflow_ipfs.content.profiles import UNIXFS_V0_2015, UNIXFS_V1_2025, Profile
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.store import ContentStore
from support.random_trees import trees
from vector_trees import Recipe, build

if TYPE_CHECKING:
    from pathlib import Path

    from support.kubo import KuboRepository

pytestmark = pytest.mark.kubo

# One example is a batch of trees, because a call of `ipfs` takes longer than to make its trees. Not shrunk:
# that would call Kubo hundreds of times, and what fails is small and can be read.
BATCHES = settings(
    max_examples=15, phases=[Phase.explicit, Phase.reuse, Phase.generate], suppress_health_check=list(HealthCheck)
)
SMALL_SIZES = [0, 1, 15, 16, 17, 32, 300, 16 * 174, 16 * 174 + 1]
REAL_SIZES = [0, 1, 1000, 262_143, 262_144, 262_145, 1_048_575, 1_048_576, 1_048_577]


def build_batch(directory: Path, recipes: list[Recipe]) -> Path:
    batch = directory / "batch"
    shutil.rmtree(batch, ignore_errors=True)
    batch.mkdir()
    for number, recipe in enumerate(recipes):
        build(recipe, batch / str(number))
    return batch


def add_with_kubo(kubo: KuboRepository, batch: Path, *flags: str) -> dict[str, str]:
    """Return the CID of each tree of the batch, and under "batch" that of all."""
    printed = kubo.run("add", "--recursive", "--hidden", *flags, batch.name, cwd=batch.parent).decode(errors="replace")
    lines = [line.split(" ", 2)[1:] for line in printed.splitlines() if line.startswith("added ")]
    return {path.removeprefix("batch/"): cid for cid, path in lines if path.count("/") <= 1}


def add_with_us(batch: Path, options: ImportOptions) -> dict[str, str]:
    paths = {path.name: path for path in (batch, *batch.iterdir())}
    with Importer(HashOnlyPublication(), options) as importer:
        return {name: str(importer.import_path(path).link.cid) for name, path in paths.items()}


def repository_of(profile: Profile, request: pytest.FixtureRequest) -> KuboRepository:
    found: KuboRepository = request.getfixturevalue("kubo_v1" if profile is UNIXFS_V1_2025 else "kubo_v0")
    return found


@pytest.mark.parametrize("profile", [UNIXFS_V1_2025, UNIXFS_V0_2015], ids=lambda profile: profile.name)
class TestSameCIDs:
    @BATCHES
    @given(
        recipes=st.lists(trees(SMALL_SIZES), min_size=4, max_size=16), chunk_bytes=st.sampled_from([16, 17, 100, 1000])
    )
    def test_in_small_chunks(
        self,
        profile: Profile,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        recipes: list[Recipe],
        chunk_bytes: int,
    ) -> None:
        batch = build_batch(tmp_path, recipes)
        flags = ("--only-hash", f"--chunker=size-{chunk_bytes}")
        options = ImportOptions(profile=profile, chunker=FixedSizeChunker(chunk_bytes))
        assert add_with_us(batch, options) == add_with_kubo(repository_of(profile, request), batch, *flags)

    @BATCHES
    @given(recipes=st.lists(trees(REAL_SIZES, max_leaves=5), min_size=2, max_size=8))
    def test_in_chunks_of_the_profile(
        self, profile: Profile, request: pytest.FixtureRequest, tmp_path: Path, recipes: list[Recipe]
    ) -> None:
        batch = build_batch(tmp_path, recipes)
        ours = add_with_us(batch, ImportOptions(profile=profile))
        assert ours == add_with_kubo(repository_of(profile, request), batch, "--only-hash")

    @BATCHES
    @given(
        recipes=st.lists(trees([0, 1, 63, 64, 65, 200], with_metadata=True), min_size=4, max_size=12),
        kept=st.sampled_from([("mode",), ("mtime",), ("mode", "mtime")]),
    )
    def test_with_modes_and_times(
        self,
        profile: Profile,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        recipes: list[Recipe],
        kept: tuple[str, ...],
    ) -> None:
        batch = build_batch(tmp_path, recipes)
        # No --only-hash: together with --preserve-*, Kubo then prints the wrong CID for directories.
        flags = [f"--preserve-{what}" for what in kept] + ["--pin=false", "--chunker=size-64"]
        if profile is UNIXFS_V1_2025:
            flags.append("--raw-leaves=false")
        options = ImportOptions(
            profile=profile,
            chunker=FixedSizeChunker(64),
            preserve_mode="mode" in kept,
            preserve_mtime="mtime" in kept,
        )
        assert add_with_us(batch, options) == add_with_kubo(repository_of(profile, request), batch, *flags)


def test_raw_leaves_of_cid_version_0_are_named_as_in_kubo(kubo_v0: KuboRepository, tmp_path: Path) -> None:
    """`--cid-version=0 --raw-leaves`: leaves have a CIDv1, nodes a CIDv0; a file of one chunk is its leaf."""
    profile = replace(UNIXFS_V0_2015, raw_leaves=True)
    recipes: list[Recipe] = [{"kind": "file", "size": size, "seed": str(size)} for size in REAL_SIZES]
    batch = build_batch(tmp_path, recipes)
    with ContentStore(open_local_storage(tmp_path / "store"), profile=profile) as store:
        ours = {path.name: str(store.add(path).cid) for path in (batch, *batch.iterdir())}
        assert ours == add_with_kubo(kubo_v0, batch, "--only-hash", "--cid-version=0", "--raw-leaves")
        assert {cid[:2] for cid in ours.values()} == {"ba", "Qm"}
        for name, cid in ours.items():
            if name != "batch":
                assert store.open(cid).read() == (batch / name).read_bytes()
        assert store.open(ours["batch"], "3").read() == (batch / "3").read_bytes()
