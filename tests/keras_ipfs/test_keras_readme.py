"""The lines for Keras in the documents, run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.keras_models import KERAS_MARKS, X, Y, steps

if TYPE_CHECKING:
    from support.run_targets import MemoryTarget

pytestmark = KERAS_MARKS

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/measure-training.md"])
def test_the_lines_run_as_printed(target: MemoryTarget, model: Any, document: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (PROJECT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if "keras_ipfs" in block]
    exec(compile(block, document, "exec"), {"model": model, "x": X, "y": Y})
    for key in ("loss", "accuracy", "epoch_seconds", "samples_per_second", "learning_rate"):
        assert steps(target, key) == [0, 1, 2, 3, 4], key
    assert any(point.key.startswith("system/") for _, point in target.points)
    assert {status for _, status, _ in target.finished} == {"FINISHED"}
    assert len(target.runs) == 1
