from __future__ import annotations

import gc
import os
import signal
import threading
import time

from mlflow_ipfs.content.system.locking import KeyedLocks
from support.processes import fork_child


def test_threads_with_the_same_key_take_turns_and_others_do_not_wait() -> None:
    locks = KeyedLocks()
    inside: list[bytes] = []
    most: list[int] = []

    def work(key: bytes) -> None:
        with locks.of(key):
            inside.append(key)
            most.append(inside.count(key))
            time.sleep(0.02)
            inside.remove(key)

    threads = [threading.Thread(target=work, args=[key]) for key in (b"a", b"b") * 4]
    with locks.of(b"c"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 8
    gc.collect()
    assert len(locks._locks) == 0


def test_a_forked_child_does_not_wait_for_its_parent() -> None:
    locks = KeyedLocks()

    def take() -> None:
        signal.alarm(10)
        with locks.of(b"a"):
            pass

    with locks.of(b"a"):
        status = os.waitpid(fork_child(take), 0)[1]
    assert status == 0
