"""Fixtures for the tests of the content layer."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def deep_path() -> Iterator[Path]:
    """A directory for trees so deep that Python cannot remove them: pytest would fail to clean up after itself."""
    directory = Path(tempfile.mkdtemp(prefix="mlflow-ipfs-deep-"))
    yield directory
    subprocess.run(["rm", "-rf", directory], check=True, timeout=300)
