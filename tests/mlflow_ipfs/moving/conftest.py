from __future__ import annotations

from support.mlflow_sites import client, database, empty_database, store

__all__ = ["client", "database", "empty_database", "store"]
