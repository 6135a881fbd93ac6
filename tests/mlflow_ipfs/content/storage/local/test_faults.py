"""The n-th step on the disk fails, for every n of a workload: a clear error, nothing lost, nothing left behind."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import MlflowIpfsError, StoreFullError
from support.faulty_disk import FaultyDisk
from support.soak import soak_round
from support.storages import leftovers
from support.store_workload import Workload, check_no_residue, check_usable, check_whole, names_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.soak import Count

pytestmark = pytest.mark.usefixtures("large_files_begin_early")

NUMBERS = {"full": errno.ENOSPC, "broken": errno.EIO}


def fail_at(directory: Path, kind: str, passing: int, seed: int | None = None) -> str | None:
    """Run a workload; let so many fallible steps pass. Returns the step that failed, or None after the last."""
    workload, disk = Workload(), FaultyDisk(NUMBERS[kind])
    storage = open_local_storage(directory, disk=disk, timeout_seconds=5)
    disk.passing = passing
    for step in workload.steps(seed):
        is_first = disk.failed is None
        before = names_of(storage)
        try:
            step(storage)
        except (MlflowIpfsError, OSError) as error:
            assert disk.failed is not None, "an error that no disk made"
            assert is_first, "an error although the disk works again"
            check_error(error, kind)
            assert names_of(storage) == before, f"half of a step that failed ({disk.failed}) is there"
            check_whole(storage, workload.contents)
            assert not leftovers(directory), f"a draft is left after {disk.failed}"
            storage = reopen(storage, disk, workload)
            assert names_of(storage) == before, "what failed came back"
            step(storage)
        else:
            is_swallowed = is_first and disk.failed is not None
            assert not is_swallowed or may_be_swallowed(disk.failed, step), (
                f"nobody was told of the failed {disk.failed}"
            )
    check_usable(storage, workload.contents)
    storage.close()
    return disk.failed


def check_error(error: Exception, kind: str) -> None:
    if kind == "full":
        assert isinstance(error, StoreFullError)
        assert "full" in str(error)
    else:
        assert not isinstance(error, StoreFullError)
        assert "I/O error" in str(error) or "Input/output error" in str(error)


def may_be_swallowed(failed: str | None, step: Callable[[LocalStorage], None]) -> bool:
    """A gc or an eviction may leave for the next one what it has no room for; a checkpoint can wait; a path is an extra."""
    return failed == "checkpoint" or step.__name__ in {"collect", "drop_cache", "ask_for_path"}


def reopen(storage: LocalStorage, disk: FaultyDisk, workload: Workload) -> LocalStorage:
    directory = storage.directory
    storage.close()
    storage = open_local_storage(directory, disk=disk, timeout_seconds=5, create=False)
    assert not leftovers(directory)
    storage.collect_garbage(grace_seconds=0)
    check_no_residue(storage)
    check_whole(storage, workload.contents)
    return storage


def record_steps(directory: Path, seed: int | None) -> list[str]:
    disk = FaultyDisk(errno.EIO)
    with open_local_storage(directory, disk=disk) as storage:
        before = len(disk.steps)
        for step in Workload().steps(seed):
            step(storage)
        return disk.steps[before:]


def fail_at_every(tmp_path: Path, kind: str, stride: int, seed: int | None = None) -> list[str]:
    """Fail at every ``stride``-th step, and in the midst of those of each kind. Returns which steps failed."""
    steps = record_steps(tmp_path / "count", seed)
    by_kind = [[number for number, step in enumerate(steps) if step == name] for name in sorted(set(steps))]
    passings = {numbers[len(numbers) // 2] for numbers in by_kind} | set(range(0, len(steps), stride))
    seen: list[str] = []
    for passing in sorted(
        passing for passing in passings if passing < len(steps) - 12
    ):  # with threads the number varies
        try:
            failed = fail_at(tmp_path / f"{passing}", kind, passing, seed)
        except Exception as error:
            error.add_note(f"after {passing} steps of {len(steps)}")
            raise
        assert failed is not None
        seen.append(failed)
    return seen


@pytest.mark.parametrize("kind", sorted(NUMBERS))
@pytest.mark.slow
def test_a_step_that_fails(tmp_path: Path, kind: str) -> None:
    failed = fail_at_every(tmp_path, kind, stride=17)
    assert {"write", "commit"} <= set(failed)
    assert len(failed) > 15


@pytest.mark.soak
@pytest.mark.fixed
@pytest.mark.parametrize("kind", sorted(NUMBERS))
def test_every_step_that_fails(tmp_path: Path, kind: str, record_property: Count) -> None:
    steps = fail_at_every(tmp_path, kind, stride=1)
    assert {"create", "write", "sync", "sync_directory", "rename", "commit", "checkpoint"} <= set(steps)
    record_property("failing disks", len(steps))


@pytest.mark.soak
@pytest.mark.parametrize("kind", sorted(NUMBERS))
@pytest.mark.parametrize("number", range(4))
def test_every_step_of_random_work_that_fails(tmp_path: Path, number: int, kind: str, record_property: Count) -> None:
    steps = fail_at_every(tmp_path, kind, stride=1, seed=soak_round() * 4 + number)
    record_property("failing disks", len(steps))
