"""Plugin module with SQLAlchemy's dialect for ``ipfs+postgresql://``: PostgreSQL's, with the driver that is installed."""

from __future__ import annotations

from mlflow_ipfs.binding.databases.drivers import default_dialect


def __getattr__(name: str) -> object:
    """Return the dialect's class at the first access, which imports the driver."""
    if name != "postgresql":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return default_dialect()
