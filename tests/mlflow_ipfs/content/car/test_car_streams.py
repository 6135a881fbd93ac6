"""Streams of CARs: short writes, memory, and Kubo at the other end."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.car import import_steps
from mlflow_ipfs.content.car.format import CarPart
from mlflow_ipfs.content.car.importing import CarImport
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidDataError
from support.cars import sample, write_car
from support.storages import put_blocks

if TYPE_CHECKING:
    from pathlib import Path

    from support.kubo import KuboRepository


class RawPipe(io.RawIOBase):
    """Takes a few bytes at a time, as a file without a buffer may."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data[:7])
        return min(7, len(data))


def test_a_stream_may_take_less_than_it_is_given() -> None:
    root, car, blocks = sample()
    with ContentStore(MemoryStorage()) as store:
        put_blocks(store.storage, blocks.items())
        pipe = RawPipe()
        assert store.export_car(root, pipe) == len(car)  # type: ignore[arg-type]
    assert pipe.data == car


MEMORY_SCRIPT = """
import os, re, sys
from mlflow_ipfs.content.storage.local import open_local_storage
from mlflow_ipfs.content.car.format import encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID, DAG_CBOR
from mlflow_ipfs.content.codecs.dag_cbor import encode_dagcbor
from mlflow_ipfs.content.store import ContentStore

COUNT = 300

def peak_kib():  # not ru_maxrss: that is inherited from whoever started this process
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

def make_leaf(number):
    return number.to_bytes(4, "big") * (1 << 18)

def write(file):
    cids = [CID.of(make_leaf(number)) for number in range(COUNT)]
    top = encode_dagcbor(cids)
    root = CID.of(top, DAG_CBOR)
    file.write(encode_car_header([root]) + encode_car_block(root, top))
    for number, cid in enumerate(cids):
        file.write(encode_car_block(cid, make_leaf(number)))

source, sink = os.pipe()
if os.fork() == 0:
    os.close(source)
    with open(sink, "wb") as file:
        write(file)
    os._exit(0)
os.close(sink)
with ContentStore(open_local_storage("store")) as store, open(source, "rb") as file, open(os.devnull, "wb") as null:
    before = peak_kib()
    [root] = store.import_car(file)
    assert store.export_car(root, null) > COUNT << 20
    os.wait()
    print(peak_kib() - before >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_memory_does_not_grow_with_the_bytes_of_a_car(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) < 50, "MiB, of 300"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_blocks_of_a_car(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of a block takes about 400 bytes until its step ends."""
    blocks = 12_000
    path = tmp_path / "x.car"
    with path.open("wb") as file:
        write_car(file, [], ((CID.of(data), data) for data in (b"%d" % number for number in range(blocks))))
    peaks = []
    for step, name in ((500, "small steps"), (blocks, "one step")):
        monkeypatch.setattr(import_steps, "STEP_BLOCKS", step)
        with ContentStore(open_local_storage(tmp_path / name)) as store, path.open("rb") as file:
            tracemalloc.start()
            store.import_car(file)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[0] < 1 << 20 < peaks[1]


@pytest.mark.kubo
@pytest.mark.parametrize("fixture", ["kubo_v1", "kubo_v0"])
def test_cars_of_kubo_are_continued_and_kubo_reads_what_was(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kubo: KuboRepository = request.getfixturevalue(fixture)
    (tmp_path / "tree").mkdir()
    for name in ("one", "two"):
        (tmp_path / "tree" / name).write_bytes(os.urandom(1_500_000))
    cid = kubo("add", "-r", "-Q", "--pin=false", tmp_path / "tree")
    data = kubo.run("dag", "export", "--progress=false", cid)
    with ContentStore(open_local_storage(tmp_path / "store")) as store:
        with CarImport(store.storage) as transfer, pytest.raises(InvalidDataError):
            transfer.take(io.BytesIO(data[:2_000_000]))
        assert transfer.kept_blocks > 1
        part = CarPart(transfer.resume_from, roots=tuple(transfer.roots))
        assert [str(root) for root in store.import_car(io.BytesIO(data[part.start :]), part=part)] == [cid]
        assert store.verify(cid, against=tmp_path / "tree").problems == []
        rest = io.BytesIO()
        store.export_car(cid, rest, skip_bytes=1_234_567)
    assert rest.getvalue() == data[1_234_567:], "our CAR has the bytes of Kubo's, so either may continue the other"
    kubo("repo", "gc", "--quiet")
    assert f"Pinned root\t{cid}\tsuccess" in kubo("dag", "import", stdin=data[:1_234_567] + rest.getvalue())
