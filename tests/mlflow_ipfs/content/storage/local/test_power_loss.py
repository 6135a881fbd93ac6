"""The power goes at every step of a workload: whatever the disk shows then, nothing acknowledged is lost."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.errors import MlflowIpfsError
from support.power_loss import STYLES, Event, Moment, RecordingDisk, replay
from support.soak import soak_round
from support.store_workload import Names, Workload, check_usable, check_whole, names_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mlflow_ipfs.content.cid import CID
    from support.soak import Count

pytestmark = pytest.mark.usefixtures("large_files_begin_early")

SEED = 20261124


def record(directory: Path, disk: RecordingDisk, seed: int | None = None) -> Workload:
    """Make a store, run a workload in it with a close and an opening in the middle."""
    workload = Workload()
    storage = open_local_storage(directory, disk=disk)
    disk.acknowledge(names_of(storage))
    for number, step in enumerate(workload.steps(seed)):
        step(storage)
        disk.acknowledge(names_of(storage))
        if number == 5:
            storage.close()
            disk.note_database("closed")
            storage = open_local_storage(directory, disk=disk)
    storage.close()
    disk.note_database("closed")
    return workload


def check_state(directory: Path, moment: Moment, contents: dict[CID, bytes]) -> None:
    """Open what the disk shows, and find everything that was acknowledged."""
    if any(directory.iterdir()):
        for name in ("write", "publish", "gc", "outbox"):  # lock files are made beside Disk, and hold nothing
            (directory / f"{name}.lock").touch()
    with open_local_storage(directory, timeout_seconds=5, create=moment.told is None) as storage:
        allowed = [moment.told or Names(), moment.about_to_tell()]
        assert names_of(storage) in allowed, "a name that was acknowledged is lost, or one is back"
        check_whole(storage, contents)
        check_usable(storage, contents)


def lose_power(
    events: list[Event],
    contents: dict[CID, bytes],
    scratch: Path,
    wanted: Callable[[int], Iterable[str]],
    *,
    seed: int = SEED,
) -> int:
    """Check a state for each wanted style at each step. Returns how many."""
    count = 0
    for moment in replay(events):
        for style in wanted(moment.step):
            directory = scratch / f"{moment.step}-{style}"
            moment.build(directory, style, random.Random(f"{seed}-{moment.step}-{style}"))
            try:
                check_state(directory, moment, contents)
            except Exception as error:
                last = [event.kind for event in events[max(0, moment.step - 5) : moment.step]]
                error.add_note(f"power lost after step {moment.step} of {len(events)} ({last}), style {style}")
                raise
            shutil.rmtree(directory)
            count += 1
    return count


def before_and_after_commits(events: list[Event]) -> set[int]:
    """The steps at which a missing sync does the most harm."""
    kinds = {"commit", "checkpoint", "acknowledge", "rename"}
    return {step for index, event in enumerate(events) if event.kind in kinds for step in (index, index + 1)}


def test_the_recording_knows_every_file(directory: Path) -> None:
    disk = RecordingDisk(directory)
    record(directory, disk)
    *_, last = replay(disk.events)
    assert last.names("files") == {str(path.relative_to(directory)) for path in directory.glob("files/*/*")}
    assert last.names("files")
    assert {"create", "write", "sync", "sync_directory", "rename", "remove", "commit"} <= {
        event.kind for event in disk.events
    }


@pytest.mark.slow
def test_nothing_acknowledged_is_lost(directory: Path, tmp_path: Path) -> None:
    disk = RecordingDisk(directory)
    workload = record(directory, disk)
    steps = before_and_after_commits(disk.events)

    def wanted(step: int) -> list[str]:
        if step in steps:
            return ["least"] if step % 2 else ["random"]
        return [STYLES[step % len(STYLES)]] if step % 9 == 0 else []

    assert lose_power(disk.events, workload.contents, tmp_path, wanted) > 50


@pytest.mark.soak
@pytest.mark.fixed
@pytest.mark.parametrize("style", STYLES)
def test_nothing_acknowledged_is_lost_at_any_step(
    directory: Path, tmp_path: Path, style: str, record_property: Count
) -> None:
    disk = RecordingDisk(directory)
    workload = record(directory, disk)
    count = lose_power(disk.events, workload.contents, tmp_path, lambda _: [style])
    assert count > 150
    record_property("losses of power", count)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(8))
def test_nothing_acknowledged_is_lost_at_any_step_of_random_work(
    directory: Path, tmp_path: Path, number: int, record_property: Count
) -> None:
    disk, seed = RecordingDisk(directory), soak_round() * 8 + number
    workload = record(directory, disk, seed)
    style = STYLES[number // 2 % len(STYLES)] if number % 2 else "random"
    record_property(
        "losses of power", lose_power(disk.events, workload.contents, tmp_path, lambda _: [style], seed=seed)
    )


@pytest.mark.parametrize("missing", ["files", "directories", None])
@pytest.mark.slow
def test_a_missing_sync_is_found(directory: Path, tmp_path: Path, missing: str | None) -> None:
    disk = RecordingDisk(directory, sync_files=missing != "files", sync_directories=missing != "directories")
    workload = record(directory, disk)
    told = [index + 1 for index, event in enumerate(disk.events) if event.kind == "acknowledge"]
    style = "names" if missing == "files" else "least"

    def wanted(step: int) -> list[str]:
        return [style] if step in told[1:] else []  # the first one tells of an empty store

    if missing is None:  # so it is the sync that was found missing
        assert lose_power(disk.events, workload.contents, tmp_path, wanted) == len(workload.steps())
        return
    with pytest.raises((AssertionError, OSError, MlflowIpfsError)) as caught:
        lose_power(disk.events, workload.contents, tmp_path, wanted)
    assert "power lost" in caught.value.__notes__[0]
