"""``log_dataset``: a file or directory becomes an artifact of a run, and an input of the run with its CID.

The upload goes where all artifacts of the run go: through a server, or into the store of this machine. So the content is
in the store that later names the CID, and clients without this package can load it. The recorded source is
``runs:/<run id>/datasets/<CID>/<name>``: MLflow's ``local`` type of source downloads any artifact URI.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlflow
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source_registry import get_dataset_source_from_json
from mlflow.entities import DatasetInput, InputTag
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from mlflow_ipfs.binding.dataset_inputs import CID_FIELD, dataset_digest
from mlflow_ipfs.config import Settings
from mlflow_ipfs.content.storage.memory import MemoryStorage
from mlflow_ipfs.content.store import ContentStore
from mlflow_ipfs.errors import InvalidPathError, NotFoundError, SourceChangedError

if TYPE_CHECKING:
    from typing import Any

    from mlflow.data.dataset_source import DatasetSource

    from mlflow_ipfs.content.cid import CID

DIRECTORY: Final = "datasets"  # in the artifacts of a run
_SOURCE_TYPE: Final = "local"


class LoggedDataset(Dataset):
    """A dataset that is an artifact of a run.

    Args:
        source: downloads the content: ``dataset.source.load()``.
        name: the name that MLflow shows.
        content: the CID and the size.
    """

    def __init__(self, source: DatasetSource, name: str, content: _Content) -> None:
        self._content = content
        super().__init__(source, name=name, digest=dataset_digest(content.cid))

    @property
    def cid(self) -> str:
        """The CID of the file or directory, as ``mlflow-ipfs add`` prints it with the same settings."""
        return str(self._content.cid)

    @property
    def size_bytes(self) -> int:
        """The size of the file, or the sum of the sizes of all files of the directory."""
        return self._content.size_bytes

    @property
    def profile(self) -> dict[str, Any]:
        """What MLflow shows of the dataset: its CID and its size in bytes."""
        return {CID_FIELD: self.cid, "size_bytes": self.size_bytes}

    @property
    def schema(self) -> None:
        """None: the content is not parsed."""

    def to_dict(self) -> dict[str, str]:
        """Return the fields that MLflow records."""
        return {**super().to_dict(), "profile": json.dumps(self.profile)}

    def _compute_digest(self) -> str:
        return dataset_digest(self._content.cid)


@dataclass(frozen=True, slots=True)
class _Content:
    cid: CID
    size_bytes: int


def log_dataset(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    context: str | None = None,
    run_id: str | None = None,
    tracking_uri: str | None = None,
) -> LoggedDataset:
    """Upload a file or directory as an artifact of a run, and log it as an input of the run with its CID.

    Model versions that are registered from the run get the CID in their tag ``ipfs.dataset_cids``. What is already in
    the store is stored once.

    Args:
        path: the file or directory. It must not change during the call.
        name: the dataset's name in MLflow; None for the name of the file or directory.
        context: what the run uses it for, for example ``"training"``; MLflow shows it.
        run_id: the run; None for the active run, which is started if there is none, as by ``mlflow.log_input``.
        tracking_uri: the MLflow that has the run ``run_id``; None for the one that is set in this process.

    Returns:
        The dataset. Any MLflow client loads it with ``mlflow.data.get_source(dataset).load()``, if its tracking URI is that
        of the run.

    Raises:
        NotFoundError: the path does not exist.
        InvalidPathError: the directory contains a symlink or nothing, which artifacts cannot represent.
        ValueError: ``tracking_uri`` without ``run_id``; the active run belongs to the tracking URI of this process.
        SourceChangedError: a file changed during the call; the artifact may be incomplete, and no input was logged.
        mlflow.exceptions.MlflowException: MLflow refused the artifact or the input.
    """
    if tracking_uri is not None and run_id is None:
        msg = "a dataset cannot be logged to the active run at another tracking URI; name the run with run_id"
        raise ValueError(msg)
    source = Path(path).absolute()
    label, source = source.name, source.resolve()
    stamps, content = _stamps(source), _hash(source)
    directory = f"{DIRECTORY}/{content.cid}"
    run = run_id or (mlflow.active_run() or mlflow.start_run()).info.run_id
    client = mlflow.MlflowClient(tracking_uri)
    if source.is_dir():
        client.log_artifacts(run, str(source), f"{directory}/{label}")
    else:
        client.log_artifact(run, str(source), directory)
        label = source.name
    if _stamps(source) != stamps:
        msg = f"{source} changed while it was uploaded, so it was not logged as an input of run {run}; log it again"
        raise SourceChangedError(msg)
    uri = f"runs:/{run}/{directory}/{label}"
    dataset = LoggedDataset(
        get_dataset_source_from_json(json.dumps({"uri": uri}), _SOURCE_TYPE), name or label, content
    )
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)] if context else []
    client.log_inputs(run, [DatasetInput(dataset._to_mlflow_entity(), tags)])  # noqa: SLF001 - as mlflow.log_input does
    return dataset


def _hash(path: Path) -> _Content:
    """Return the CID that the path has in the run's artifacts. Nothing is stored."""
    settings = Settings.from_environment()
    with ContentStore(MemoryStorage(), profile=settings.profile, chunker=settings.chunker) as store:
        added = store.add(path, only_hash=True)
    return _Content(added.cid, added.size_bytes)


def _stamps(path: Path) -> dict[Path, tuple[int, int, int]]:
    """Return inode, size and modification time of every file, which show a change during the upload."""
    if not path.exists():
        msg = f"{path} does not exist; name an existing file or directory"
        raise NotFoundError(msg)
    if path.is_dir():
        _check_files_only(path)
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    statuses = [(file, file.stat()) for file in files]
    return {file: (status.st_ino, status.st_size, status.st_mtime_ns) for file, status in statuses}


def _check_files_only(directory: Path) -> None:
    for parent, directories, files in os.walk(directory):
        links = [name for name in (*directories, *files) if Path(parent, name).is_symlink()]
        if links or not (directories or files):
            what = f"{Path(parent, links[0])} is a symlink" if links else f"{parent} is empty"
            msg = f"{directory} cannot be logged as a dataset: {what}, which MLflow's artifacts do not keep; copy or remove it"
            raise InvalidPathError(msg)
