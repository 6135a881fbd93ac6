"""The code blocks of README.md, for tests that run them as printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"


def find_code(text: str) -> str:
    """Return the Python block of the README that contains a text.

    Raises:
        LookupError: no block contains it, or several do.
    """
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = [block for block in blocks if text in block]
    if len(found) != 1:
        msg = f"{len(found)} Python blocks of the README contain {text!r}; one is expected"
        raise LookupError(msg)
    return str(found[0])


def run_code(code: str, **names: Any) -> dict[str, Any]:
    """Run a block of the README. Return the names that it defined.

    Args:
        code: the block.
        names: what the block uses without defining it.
    """
    namespace: dict[str, Any] = dict(names)
    exec(compile(code, str(README), "exec"), namespace)  # our own file
    return namespace
