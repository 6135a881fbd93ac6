"""Entry point of ``python -m mlflow_ipfs``, which is the ``mlflow-ipfs`` command."""

from __future__ import annotations

from mlflow_ipfs.cli import main

if __name__ == "__main__":
    main()
