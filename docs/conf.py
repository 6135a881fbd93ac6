"""Configuration of the documentation site: ``make docs``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mlflow_ipfs

os.environ.setdefault("KERAS_BACKEND", "torch")  # the API pages import keras_ipfs
sys.path.insert(0, str(Path(__file__).parent))

project = "mlflow-ipfs"
author = "The mlflow-ipfs developers"
version = release = mlflow_ipfs.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "metric_table"]
html_theme = "furo"
html_title = "mlflow-ipfs"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
nitpicky = (
    False  # annotations name classes of MLflow and of the standard library, whose sites cannot be reached at build
)
