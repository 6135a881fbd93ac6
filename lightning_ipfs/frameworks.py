"""The base classes of the callbacks and the logger.

``lightning`` and ``pytorch_lightning`` are two separate trees of classes, and a Trainer of one may refuse a class of the
other. A class with the bases of both works in both.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

_PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")


def base_classes(module: str, name: str) -> tuple[type[Any], ...]:
    """Return the class of that name of every Lightning package that is imported, else of the first one installed.

    Args:
        module: the module below the package, for example ``callbacks``.
        name: the class.

    Raises:
        ImportError: neither package is installed.
    """
    loaded = [package for package in _PACKAGES if package in sys.modules]
    found = loaded or [package for package in _PACKAGES if _is_installed(package)][:1]
    if not found:
        msg = "lightning_ipfs needs Lightning: pip install 'mlflow-ipfs[lightning]'"
        raise ImportError(msg)
    classes = [getattr(import_module(f"{package}.{module}"), name) for package in found]
    return tuple(dict.fromkeys(classes))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # the parent package is not installed
        return False
