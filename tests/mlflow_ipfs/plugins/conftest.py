from __future__ import annotations

from support.mlflow_sites import client, database, empty_database, store
from support.registered_models import logged_model, registry_id, run_id, version

__all__ = ["client", "database", "empty_database", "logged_model", "registry_id", "run_id", "store", "version"]
