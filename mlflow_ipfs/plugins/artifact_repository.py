"""Plugin module with the MLflow artifact repositories for ``ipfs://<cid>`` (read-only) and ``mfs://<root>/<path>``.

A client without a server also reads and writes ``mlflow-artifacts:`` locations here, see ``open_proxied_repository``.

MLflow creates a repository for nearly every call of a client, so the constructors only save the URI. The store is
opened once per process, at the first use.
"""

# MLflow loads this file at its own import, in every process of every user. Modules that load slowly are imported at
# first use.
# ruff: noqa: PLC0415

from __future__ import annotations

import contextlib
import os
import posixpath
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from mlflow.entities import FileInfo
from mlflow.exceptions import InvalidUrlException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.artifact_repo import ArtifactRepository, StreamUploadMixin

from mlflow_ipfs.binding import mlflow_compat, mlflow_process
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
from mlflow_ipfs.errors import ImmutableError, InvalidCIDError, InvalidPathError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator
    from contextlib import AbstractContextManager

    from mlflow_ipfs.binding.artifacts.artifact_trees import ArtifactTree, MutableTree
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

MAX_PREVIEW_BYTES: Final = 64 << 20  # more than 50 MB, the largest file that MLflow's UI shows


class ContentArtifactRepository(ArtifactRepository):
    """The common base class of both repositories, which implements reading."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._private_directories: list[Path] = []

    @abstractmethod
    def _open_tree(self) -> ArtifactTree:
        """Return the tree that the repository's URI names."""

    def _errors(self, path: str | None) -> AbstractContextManager[None]:
        """Translate errors about an artifact of this repository. See ``mlflow_errors``."""
        return mlflow_errors(f"{self.artifact_uri}/{path}" if path else self.artifact_uri)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return the entries of a directory, with their sizes. The list is empty for a file."""
        with self._errors(path):
            items = self._open_tree().list(path or "")
        return [FileInfo(item.path, item.is_dir, item.size_bytes) for item in items]

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Download a file or directory to the local disk, and return its local path.

        Args:
            artifact_path: path below the repository's URI; empty or None: the whole repository.
            dst_path: directory to write the user's own files to. None: create a private copy, which shares bytes with
                the store where that is safe, and which is removed when the process ends.
        """
        from mlflow_ipfs.binding.locations import check_path

        with self._errors(artifact_path):
            path = check_path(artifact_path)  # MLflow joins the path to the directory: "/a" would lead out of it
            served = self._link_for_server(path, dst_path) if path and dst_path else None
            if served is not None:
                return served
            directory = dst_path or self._make_private_directory()
            root = None if path else self._root_file()
            if root is not None:  # MLflow's method handles only directories
                target = Path(directory, root)
                self._download_file("", str(target))
                return str(target)
            downloaded = Path(super().download_artifacts(path, directory))  # type: ignore[no-untyped-call]
            if not downloaded.exists():  # an empty directory
                downloaded.mkdir(parents=True)
            return str(downloaded)

    def _link_for_server(self, path: str, directory: str) -> str | None:
        """Create a symlink in a server's temporary directory, to a file that the server is about to send.

        Returns:
            The path of the symlink. None if the caller is not a server that answers a request, or if the store has no
            single file with the content.
        """
        from mlflow_ipfs.binding.artifacts.served_files import link_into, take_download

        if not take_download(self.artifact_uri, path):
            return None
        file = self._open_tree().local_path(path)
        link = link_into(Path(directory), posixpath.basename(path), file) if file is not None else None
        return str(link) if link is not None else None

    def _root_file(self) -> str | None:
        """Return a name for the local file if the repository's URI names a file, else None."""
        try:
            is_dir = self._open_tree().stat("").is_dir
        except NotFoundError:
            return None  # a run without artifacts counts as an empty directory; a frozen tree raises in ``list``
        return None if is_dir else posixpath.basename(self.artifact_uri.rstrip("/"))

    def _is_directory(self, artifact_path: str) -> bool:
        """Return True for a directory. MLflow's own method would take an empty directory for a file."""
        return self._open_tree().stat(artifact_path).is_dir

    def _make_private_directory(self) -> str:
        if mlflow_process.in_mlflow_command():
            return mlflow_compat.make_temporary_directory()
        directory = _shared_store().storage.make_view_directory()
        self._private_directories.append(directory)
        return str(directory)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Write one file to the local disk. MLflow calls this in several threads."""
        with self._errors(remote_file_path):
            destination = Path(local_path)
            private = any(destination.is_relative_to(directory) for directory in self._private_directories)
            self._open_tree().copy_file(remote_file_path, destination, private=private)

    @contextlib.contextmanager
    def _deleting(self) -> Iterator[None]:
        """Report a malformed URI with ``InvalidUrlException``: `mlflow gc` continues only after this exception."""
        try:
            self._open_tree()
        except (InvalidCIDError, InvalidPathError) as error:
            raise InvalidUrlException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        yield

    def get_local_path(self, artifact_path: str) -> str | None:
        """Return the path of a file that MLflow's server can send at once, or None.

        MLflow's server calls this on its event loop, so no store is opened and no file is hashed or assembled here. If
        the result is None, the server calls ``download_artifacts`` on a thread, which does this and detects damage.

        MLflow derives the content type from the file name, and a file of the store does not have the artifact's name.
        So for an artifact that a browser can show, the result is None, and the server sends the file under the
        artifact's name. Files over ``MAX_PREVIEW_BYTES`` are too large to be shown.
        """
        from mlflow_ipfs.binding.artifacts.served_files import expect_download, must_not_wait

        with self._errors(artifact_path):
            path = None if must_not_wait() else self._ready_path(artifact_path)
        if path is None:
            expect_download(self.artifact_uri, artifact_path)
        return path

    def _ready_path(self, artifact_path: str) -> str | None:
        path = self._open_tree().ready_path(artifact_path)
        if path is None:
            return None
        if mlflow_compat.is_shown_in_browser(artifact_path) and path.stat().st_size <= MAX_PREVIEW_BYTES:
            return None
        return str(path)


class IpfsArtifactRepository(ContentArtifactRepository):
    """The repository of ``ipfs://<cid>[/path]``: immutable content."""

    def _open_tree(self) -> ArtifactTree:

        from mlflow_ipfs.binding.artifacts.artifact_trees import FrozenTree
        from mlflow_ipfs.binding.locations import IpfsPath

        found = IpfsPath.parse(self.artifact_uri)
        return FrozenTree(_shared_store(), found.cid, found.path)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Raise: the content of a CID cannot change."""
        self._raise_immutable(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Raise: the content of a CID cannot change."""
        self._raise_immutable(local_dir, artifact_path)

    def _raise_immutable(self, source: str, artifact_path: str | None) -> None:
        msg = (
            f"{os.fspath(source)!r} cannot be logged to {self.artifact_uri}/{artifact_path or ''}: the content of an "
            "ipfs:// URI never changes. Log to a run or to an mfs:// URI"
        )
        with self._errors(artifact_path):
            raise ImmutableError(msg)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Raise, unless the path does not exist: `mlflow gc` must continue after a URI without content."""
        with self._errors(artifact_path), self._deleting(), contextlib.suppress(NotFoundError):
            self._open_tree().stat(artifact_path or "")
            msg = (
                f"{self.artifact_uri}/{artifact_path or ''} cannot be deleted, because it is immutable; remove its last "
                "pin with `mlflow-ipfs pin rm`, and free its space with `mlflow-ipfs gc`"
            )
            raise ImmutableError(msg)


class MfsArtifactRepository(ContentArtifactRepository, StreamUploadMixin):
    """The repository of ``mfs://<root>/<path>``: a mutable tree; ``…/@<cid>`` is content frozen below one of its paths."""

    def _open_tree(self) -> MutableTree:

        from mlflow_ipfs.binding.artifacts.artifact_trees import MutableTree
        from mlflow_ipfs.binding.locations import parse_mfs

        return MutableTree(_shared_store(), parse_mfs(self.artifact_uri))

    def _target(self, artifact_path: str | None, name: str = "") -> tuple[ContentStore, MfsPath]:

        from mlflow_ipfs.binding.locations import join_path

        tree = self._open_tree()
        return tree.store, tree.at(join_path(artifact_path, name) if name else artifact_path or "")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Publish one file. The file is durable when the call returns."""
        with self._errors(_join(artifact_path, Path(local_file).name)):
            store, target = self._target(artifact_path, Path(local_file).name)
            with _show_upload(Path(local_file)) as progress:
                store.files.put_file(target, Path(local_file), progress=progress)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Publish all files of a directory atomically: a reader sees all of them or none."""
        with self._errors(artifact_path):
            store, target = self._target(artifact_path)
            with _show_upload(Path(local_dir)) as progress:
                store.files.put_tree(target, Path(local_dir), progress=progress)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Publish the content of a stream, without a temporary file of MLflow."""
        with self._errors(_join(artifact_path, artifact_file_name)):
            store, target = self._target(artifact_path, posixpath.basename(artifact_file_name))
            store.files.put_stream(target, stream)

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Publish the body of a request. MLflow's server calls this for uploads."""
        from mlflow_ipfs.binding.artifacts.uploads import publish_stream
        from mlflow_ipfs.config import Settings

        def publish(stream: BinaryIO) -> None:
            self.log_artifact_from_stream(stream, artifact_file_name, artifact_path)

        with self._errors(_join(artifact_path, artifact_file_name)):
            timeout_seconds = Settings.from_environment().timeout_seconds
            await publish_stream(chunks, publish, timeout_seconds=timeout_seconds)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete the files at a path and below it. A path that does not exist is not an error.

        Content that is frozen below the path stays, because model versions need it.

        Raises:
            MlflowException: one database is a copy of another, and both may need the files; nothing was deleted.
        """
        with self._errors(artifact_path), self._deleting():
            from mlflow_ipfs.binding.databases.claims import check_not_shared
            from mlflow_ipfs.binding.databases.sightings import check_database_not_shared

            store, target = self._target(artifact_path)
            if (backend_uri := mlflow_process.find_backend_uri(self.tracking_uri)) is not None:
                check_database_not_shared(store.storage, target, backend_uri)
            check_not_shared(store.storage, target)
            store.files.delete(target)


def _join(directory: str | None, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}" if directory else name


def open_proxied_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> ArtifactRepository:
    """Return the repository of a ``mlflow-artifacts:`` location.

    This is MLflow's own repository, which sends requests to the tracking server. With ``ipfs+sqlite://`` or
    ``ipfs+postgresql://`` as the tracking URI, MLflow's own repository fails, because there is no server to ask. Then the
    location is a path below ``MLFLOW_IPFS_ROOT``.
    """
    from mlflow_ipfs.binding.proxied_root import find_direct_path

    with mlflow_errors():
        path = find_direct_path(artifact_uri, tracking_uri)
    if path is None:
        return mlflow_compat.proxied_repository(artifact_uri, tracking_uri, registry_uri)
    return MfsArtifactRepository(str(path), tracking_uri, registry_uri)


@contextlib.contextmanager
def _show_upload(path: Path) -> Iterator[Callable[[int], None] | None]:
    """Show MLflow's progress bar while a file or directory is published, if it is large enough for a bar."""
    files = path.rglob("*") if path.is_dir() else (path,)
    size_bytes = sum(file.stat().st_size for file in files if file.is_file())
    with mlflow_compat.show_progress(f"Uploading {path}", size_bytes) as progress:
        yield progress


def _shared_store() -> ContentStore:
    from mlflow_ipfs.opening import shared_store

    return shared_store()
