"""``kill -9`` at any moment: what was acknowledged is whole, nothing else is visible, and the store opens."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.names.entries import Frozen, MfsEntry
from mlflow_ipfs.content.names.pins import Pin
from mlflow_ipfs.content.storage.base import Changes
from mlflow_ipfs.content.storage.local import open_local_storage
from support.faulty_disk import KillingDisk
from support.soak import soak_round
from support.storages import check_sound, files_of, leftovers, put_file, raw, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlflow_ipfs.content.storage.local import LocalStorage
    from support.soak import Count

pytestmark = pytest.mark.slow


def run_until_killed(work: Callable[[Callable[[str], None]], None]) -> tuple[bool, list[str]]:
    """Run in a child. Returns whether it lived to the end, and what it acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(lambda line: print(line, file=os.fdopen(os.dup(writer), "w"), flush=True))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().split()
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status), lines


def publish(storage: LocalStorage, number: int) -> CID:
    """One publication with an object, a pack or inline blocks, and every kind of name."""
    data = number.to_bytes(4, "big")
    with storage.publish() as publication:
        root = put_file(publication, data * 700)
        for index in range(80 if number % 2 else 3):
            publication.put(*raw(data + index.to_bytes(4, "big") * 250))
        publication.commit(
            Changes(
                pins=[Pin(f"run-{number}", root)],
                entries=[MfsEntry("tree", f"run/{number}", root, 2800, 3000, 1)],
                frozen=[Frozen("tree", f"run/{number}", root)],
            )
        )
    return root


def check_after_kill(directory: Path, acknowledged: list[str], attempted: int) -> None:
    """What must hold when a process was killed while it published one thing after the other."""
    with open_local_storage(directory, timeout_seconds=5) as storage:
        assert not leftovers(directory), "drafts of the dead are removed when a store is opened"
        assert not list((directory / "sessions").iterdir())
        check_sound(storage)
        pinned = [str(pin.cid) for pin in storage.pins.list()]
        assert set(acknowledged) <= set(pinned)
        # At most the one that was just being committed, and that with all its names.
        assert len(pinned) <= min(len(acknowledged) + 1, attempted)
        assert {str(entry.cid) for entry in storage.entries.walk("tree", "")} == set(pinned)
        assert {str(frozen.cid) for frozen in storage.entries.list_frozen()} == set(pinned)
        for text in pinned:
            path = storage.file_path(CID.parse(text))
            assert path is not None
            assert path.stat().st_size == 2800
        storage.collect_garbage()
        assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
        check_sound(storage)


def test_killed_at_each_step_of_publishing(directory: Path) -> None:
    open_local_storage(directory).close()
    for steps in range(400):
        known = _pinned(directory)

        def work(acknowledge: Callable[[str], None], steps: int = steps) -> None:
            storage = open_local_storage(directory, disk=KillingDisk(steps))
            for number in range(2):
                acknowledge(str(publish(storage, 1000 * (steps + 1) + number)))
            storage.close()

        survived, acknowledged = run_until_killed(work)
        check_after_kill(directory, known + acknowledged, len(known) + 2)
        if survived:
            break
    else:
        pytest.fail("the child was still killed at step 400")
    assert len(acknowledged) == 2
    assert steps > 30, "the steps are numbered"


def _pinned(directory: Path) -> list[str]:
    with open_local_storage(directory) as storage:
        return [str(pin.cid) for pin in storage.pins.list()]


def test_killed_at_each_step_of_making_the_store(tmp_path: Path) -> None:
    for steps in range(200):
        directory = tmp_path / f"store-{steps}"

        def work(_: Any, directory: Path = directory, steps: int = steps) -> None:
            open_local_storage(directory, disk=KillingDisk(steps)).close()

        survived, _ = run_until_killed(work)
        with open_local_storage(directory) as storage:
            publish(storage, 1)
            check_sound(storage)
        if survived:
            return
    pytest.fail("the child was still killed at step 200")


def test_killed_at_each_step_of_collecting(directory: Path) -> None:
    for steps in range(100):
        with open_local_storage(directory) as storage:
            keep, drop = publish(storage, 2 * steps + 1), publish(storage, 2 * steps + 2)
            storage.pins.remove(drop, f"run-{2 * steps + 2}")
            storage.entries.unfreeze(Frozen("tree", f"run/{2 * steps + 2}", drop))
            storage.entries.delete("tree", f"run/{2 * steps + 2}")

        def work(_: Any, steps: int = steps) -> None:
            open_local_storage(directory, disk=KillingDisk(steps)).collect_garbage()

        survived, _ = run_until_killed(work)
        with open_local_storage(directory) as storage:
            check_sound(storage)
            storage.collect_garbage()
            assert storage.file_path(keep) is not None
            assert not storage.blocks.has(drop)
            assert files_of(storage) == {row[0] for row in rows_of(storage, "SELECT name FROM place")}
        if survived:
            return
    pytest.fail("the child was still killed at step 100")


def kill_at_random(directory: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    open_local_storage(directory).close()
    for number in range(rounds):
        known = _pinned(directory)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            storage = open_local_storage(directory)
            for step in range(10_000):
                cid = publish(storage, number * 10_000 + step)
                os.write(writer, f"{cid}\n".encode())
            os._exit(0)
        os.close(writer)
        time.sleep(chance.uniform(0.001, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as pipe:
            acknowledged = pipe.read().split()
        check_after_kill(directory, known + acknowledged, len(known) + 10_000)


def test_killed_at_random(directory: Path) -> None:
    kill_at_random(directory, rounds=8, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_at_random_many_times(tmp_path: Path, record_property: Count) -> None:
    for number in range(40):  # a new store each time: checking takes as long as the store is large
        kill_at_random(tmp_path / f"store-{number}", rounds=8, seed=soak_round() * 40 + number)
        record_property("kill -9 at random", 8)
