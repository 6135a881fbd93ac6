"""Copying between open files gives the same bytes whichever way the kernel offers."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_ipfs.content.system.file_copy import copy_bytes
from support.mounted import mounted_tmpfs

if TYPE_CHECKING:
    from pathlib import Path

DATA = random.Random(11).randbytes((9 << 20) + 7)  # more than one step, and more than one buffer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").write_bytes(DATA)
    return tmp_path / "source"


def copy(source: Path, destination: Path, *, start: int = 0) -> list[int]:
    steps: list[int] = []
    with source.open("rb") as reader, destination.open("xb", buffering=0) as writer:
        reader.seek(start)
        assert copy_bytes(reader.fileno(), writer.fileno(), steps.append) == len(DATA) - start
    assert destination.read_bytes() == DATA[start:]
    assert not destination.samefile(source)
    return steps


def test_progress_goes_on_during_the_copy(source: Path, tmp_path: Path) -> None:
    steps = copy(source, tmp_path / "copy")
    assert sum(steps) == len(DATA)
    assert len(steps) > 1


def test_it_starts_where_the_file_stands(source: Path, tmp_path: Path) -> None:
    copy(source, tmp_path / "copy", start=12345)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with (tmp_path / "empty").open("rb") as reader, (tmp_path / "copy").open("xb") as writer:
        assert copy_bytes(reader.fileno(), writer.fileno()) == 0


def test_to_another_disk(source: Path, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", size_bytes=16 << 20) as disk:
        copy(source, disk.directory / "copy")


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="there is only one way on this system")
class TestWhereTheKernelCannotCopy:
    @pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
    def test_it_is_read_and_written(
        self, number: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "copy_file_range", refuse)
        copy(source, tmp_path / "copy")

    @pytest.mark.parametrize("answer", ["nothing", "an error"])
    def test_it_goes_on_where_the_kernel_stopped(
        self, answer: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.copy_file_range
        calls: list[int] = []

        def stop(reader: int, writer: int, _: int) -> int:
            calls.append(1)
            if len(calls) == 1:
                return real(reader, writer, 1000)
            if answer == "nothing":
                return 0
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", stop)
        assert copy(source, tmp_path / "copy")[0] == 1000

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG])
    def test_other_errors_are_raised(
        self, number: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "copy_file_range", fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            copy(source, tmp_path / "copy")
