"""The places of artifacts: what a location in MLflow's database means on this machine, and what locations share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow_ipfs.binding.locations import PROXIED, cid_of_location, scheme_of, split_proxied
from mlflow_ipfs.errors import InvalidPathError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL

    from mlflow_ipfs.binding.databases.artifact_rows import ArtifactRow

DEFAULT_DESTINATION: Final = "mlartifacts"  # MLflow's default directory of a server for proxied artifacts
_DESTINATIONS: Final = ("_MLFLOW_SERVER_ARTIFACT_DESTINATION", "MLFLOW_ARTIFACTS_DESTINATION")
_TAIL: Final = re.compile(r"/\d+/(models/[^/]+|traces/[^/]+|[0-9a-f]{32})/artifacts(/.*)?$", re.ASCII)
_USER: Final = re.compile(r"(?<=://)[^/@]*@")


def configured_destination(environ: Mapping[str, str]) -> str:
    """Return the ``--artifacts-destination`` that the environment sets; ``""`` if it sets none."""
    return next((environ[name] for name in _DESTINATIONS if environ.get(name)), "")


def local_path(uri: str) -> str | None:
    """Return the local path of a location without a scheme or with ``file:``; None if it names another host."""
    if scheme_of(uri) != "file":
        return uri
    split = urlsplit(uri)
    return url2pathname(split.path) if split.netloc in {"", "localhost"} else None


def proxied_path(uri: str) -> str | None:
    """Return the path of a proxied location; None for a frozen or malformed location, or one with another scheme."""
    if scheme_of(uri) != PROXIED or cid_of_location(uri) is not None:
        return None
    try:
        return split_proxied(uri)[1]
    except InvalidPathError:
        return None


def search_directories(database: URL) -> tuple[Path, ...]:
    """Return the directories against which relative locations are resolved.

    These are the current directory of this process, and the directory of a SQLite file.
    """
    bases = [Path.cwd()]
    if database.get_backend_name() == "sqlite" and database.database:
        bases.append(Path(database.database).absolute().parent)
    return tuple(dict.fromkeys(bases))


def find_common_root(row: ArtifactRow) -> str:
    """Return the part of a row's location that rows of its kind have in common, without credentials."""
    middle = {"run": row.name, "logged model": f"models/{row.name}", "trace": f"traces/{row.name}"}.get(row.kind)
    common_root = row.uri.split("?", 1)[0].rstrip("/")
    if middle is None:
        common_root = _root_of(common_root)
    else:
        common_root = common_root.removesuffix("/artifacts").removesuffix(middle).rstrip("/")
        common_root = _without_last(common_root, str(row.experiment_id))
    return without_user(common_root) or row.uri[:1]


def without_user(uri: str) -> str:
    """Return a URI without user name and password."""
    return _USER.sub("", uri)


def hide_user(text: str, uri: str) -> str:
    """Return a text about a URI, for example an error message, without the user name and password of the URI."""
    found = _USER.search(uri)
    return without_user(text.replace(found.group(), "") if found else text)


def _without_last(common_root: str, name: str) -> str:
    """Remove the experiment's number from a URI: ``s3://b/mlruns/7`` becomes ``s3://b/mlruns``.

    The root ``mlflow-artifacts:/7`` keeps its slash: ``mlflow-artifacts:/``.
    """
    before, slash, last = common_root.rpartition("/")
    if not slash or last != name:
        return common_root
    return f"{before}/" if before.endswith((":", "/")) else before


def printable(text: str) -> str:
    """Return the text with unprintable characters escaped, for terminals and for the record in a backup."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _root_of(uri: str) -> str:
    """Return the root of a model version's location: the bucket, or the directory that contains the path."""
    if scheme_of(uri) in {"", "file"}:
        without = _TAIL.sub("", uri)
        return without if without != uri else uri.rpartition("/")[0] or uri
    split = urlsplit(uri)
    return f"{split.scheme}://{split.netloc}" if split.netloc else f"{split.scheme}:/"
