"""MLflow artifact repositories for ``ipfs://<cid>`` (read-only) and ``mfs://<root>/<path>``.

MLflow builds a repository for nearly every call of a client, so the constructors do nothing but
remember the URI; the store behind them is opened once per process, at the first use.
"""

# MLflow loads this file at its own import, in every process of every user: what takes time to load comes at first use.
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

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.mlflow_errors import mlflow_errors
from mlflow_ipfs.errors import ImmutableError, InvalidCIDError, InvalidPathError, IsDirectoryError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator

    from mlflow_ipfs.binding.artifacts.artifact_trees import ArtifactTree, MutableTree
    from mlflow_ipfs.content.mfs import MfsPath
    from mlflow_ipfs.content.store import ContentStore

MAX_PREVIEW_BYTES: Final = 64 << 20  # above the 50 MB up to which MLflow's UI shows a file


class ContentArtifactRepository(ArtifactRepository):
    """What both repositories share: reading."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._private_directories: list[Path] = []

    @abstractmethod
    def _open_tree(self) -> ArtifactTree:
        """The tree that the repository's URI names."""

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """The artifacts directly in a directory, with their sizes; none for a file."""
        with mlflow_errors():
            items = self._open_tree().list(path or "")
        return [FileInfo(item.path, item.is_dir, item.size_bytes) for item in items]

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Bring a file or directory to the local disk, and return where it is.

        Args:
            artifact_path: path below the repository's URI; empty: all of it.
            dst_path: directory to write it to, as files of the user's own. None: a private copy that
                shares bytes with the store where that is safe, and goes when the process ends.
        """
        from mlflow_ipfs.binding.locations import check_path

        with mlflow_errors():
            path = check_path(artifact_path)  # MLflow joins it to the directory: "/a" would lead out of there
            served = self._link_for_server(path, dst_path) if path and dst_path else None
            if served is not None:
                return served
            directory = dst_path or self._make_private_directory()
            root = None if path else self._root_file()
            if root is not None:  # MLflow's own loop knows directories only
                target = Path(directory, root)
                self._download_file("", str(target))
                return str(target)
            return str(super().download_artifacts(path, directory))  # type: ignore[no-untyped-call]

    def _link_for_server(self, path: str, directory: str) -> str | None:
        """Link a file that MLflow's server is about to send into its temporary directory.

        Returns:
            None if the caller is not a server with a request to answer, or if the store has no single file.
        """
        from mlflow_ipfs.binding.artifacts.served_files import link_into, take_download

        if not take_download(self.artifact_uri, path):
            return None
        file = self._open_tree().local_path(path)
        link = link_into(Path(directory), posixpath.basename(path), file) if file is not None else None
        return str(link) if link is not None else None

    def _root_file(self) -> str | None:
        """The file name to use if the repository's URI names a file, else None."""
        try:
            is_dir = self._open_tree().stat("").is_dir
        except NotFoundError:
            return None  # a run without artifacts is an empty directory; other trees say so themselves
        return None if is_dir else posixpath.basename(self.artifact_uri.rstrip("/"))

    def _make_private_directory(self) -> str:
        if mlflow_compat.in_mlflow_command():
            return mlflow_compat.make_temporary_directory()
        directory = _shared_store().storage.make_view_directory()
        self._private_directories.append(directory)
        return str(directory)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        """Write one file to the local disk. Called by MLflow in several threads."""
        with mlflow_errors():
            destination = Path(local_path)
            private = any(destination.is_relative_to(directory) for directory in self._private_directories)
            self._open_tree().copy_file(remote_file_path, destination, private=private)

    @contextlib.contextmanager
    def _deleting(self) -> Iterator[None]:
        """Tell `mlflow gc` of a malformed URI in the one way that it gets past."""
        try:
            self._open_tree()
        except (InvalidCIDError, InvalidPathError) as error:
            raise InvalidUrlException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        yield

    def get_local_path(self, artifact_path: str) -> str | None:
        """Return a file for MLflow's server to answer from at once, or None.

        MLflow's server calls this on its event loop, so nothing is opened, hashed or assembled here. After None the
        server calls ``download_artifacts`` on a thread, which does that; damage is found there, too.

        MLflow takes the content type from the file's name, and a file of the store has none. So
        what a browser may want to show is sent under its own name instead, unless it is too
        large to be shown.
        """
        from mlflow_ipfs.binding.artifacts.served_files import expect_download, must_not_wait

        with mlflow_errors():
            path = None if must_not_wait() else self._ready_path(artifact_path)
        if path is None:
            expect_download(self.artifact_uri, artifact_path)
        return path

    def _ready_path(self, artifact_path: str) -> str | None:
        tree = self._open_tree()
        item = tree.stat(artifact_path)
        if item.is_dir:
            msg = f"{artifact_path!r} is a directory, not a file"
            raise IsDirectoryError(msg)
        if mlflow_compat.is_shown_in_browser(artifact_path) and (item.size_bytes or 0) <= MAX_PREVIEW_BYTES:
            return None
        path = tree.local_path(artifact_path, wait=False)
        return str(path) if path is not None else None


class IpfsArtifactRepository(ContentArtifactRepository):
    """``ipfs://<cid>[/path]``: content that nobody can change."""

    def _open_tree(self) -> ArtifactTree:

        from mlflow_ipfs.binding.artifacts.artifact_trees import FrozenTree
        from mlflow_ipfs.binding.locations import IpfsPath

        found = IpfsPath.parse(self.artifact_uri)
        return FrozenTree(_shared_store(), found.cid, found.path)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Refuse."""
        self._refuse_write(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Refuse."""
        self._refuse_write(local_dir, artifact_path)

    def _refuse_write(self, source: str, artifact_path: str | None) -> None:
        msg = (
            f"{os.fspath(source)!r} can't be logged to {self.artifact_uri}/{artifact_path or ''}: an ipfs:// URI names "
            "content, and content never changes. Log to a run or to an mfs:// URI"
        )
        with mlflow_errors():
            raise ImmutableError(msg)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refuse, unless there is nothing to delete: `mlflow gc` must get past an URI without content."""
        with mlflow_errors(), self._deleting(), contextlib.suppress(NotFoundError):
            self._open_tree().stat(artifact_path or "")
            msg = (
                f"{self.artifact_uri}/{artifact_path or ''} is immutable; its bytes go with its last pin: "
                "`mlflow-ipfs pin rm` and `mlflow-ipfs gc`"
            )
            raise ImmutableError(msg)


class MfsArtifactRepository(ContentArtifactRepository, StreamUploadMixin):
    """``mfs://<root>/<path>``: a mutable tree; ``…/@<cid>`` is what was frozen below a path of it."""

    def _open_tree(self) -> MutableTree:

        from mlflow_ipfs.binding.artifacts.artifact_trees import MutableTree
        from mlflow_ipfs.binding.locations import parse_mfs

        return MutableTree(_shared_store(), parse_mfs(self.artifact_uri))

    def _place(self, artifact_path: str | None, name: str = "") -> tuple[ContentStore, MfsPath]:

        from mlflow_ipfs.binding.locations import join_path

        tree = self._open_tree()
        return tree.store, tree.at(join_path(artifact_path, name) if name else artifact_path or "")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Publish one file. It is durable when the call returns."""
        with mlflow_errors():
            store, place = self._place(artifact_path, Path(local_file).name)
            with _show_upload(Path(local_file)) as progress:
                store.files.put_file(place, Path(local_file), progress=progress)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Publish all files of a directory in one step: readers see all of them or none."""
        with mlflow_errors():
            store, place = self._place(artifact_path)
            with _show_upload(Path(local_dir)) as progress:
                store.files.put_tree(place, Path(local_dir), progress=progress)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Publish what a stream yields, without a temporary file of MLflow's."""
        with mlflow_errors():
            store, place = self._place(artifact_path, posixpath.basename(artifact_file_name))
            store.files.put_stream(place, stream)

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Publish the body of a request; how MLflow's server takes uploads."""
        from mlflow_ipfs.binding.artifacts.uploads import publish_stream
        from mlflow_ipfs.config import Settings

        def publish(stream: BinaryIO) -> None:
            self.log_artifact_from_stream(stream, artifact_file_name, artifact_path)

        with mlflow_errors():
            timeout_seconds = Settings.from_environment().timeout_seconds
            await publish_stream(chunks, publish, timeout_seconds=timeout_seconds)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Forget the files at a path and below it; nothing there is no error.

        What was frozen below the path stays: model versions need it. In a tree that two databases have, because
        one is a copy of the other, nothing is deleted.
        """
        with mlflow_errors(), self._deleting():
            from mlflow_ipfs.binding.databases.claims import check_not_shared

            store, place = self._place(artifact_path)
            check_not_shared(store.storage, place)
            if (backend_uri := mlflow_compat.server_backend_uri()) is not None:
                from mlflow_ipfs.binding.databases.sightings import check_server_not_shared

                check_server_not_shared(store.storage, place, backend_uri)
            store.files.delete(place)


@contextlib.contextmanager
def _show_upload(path: Path) -> Iterator[Callable[[int], None] | None]:
    """A progress bar for publishing a file or directory, if it is a long one."""
    files = path.rglob("*") if path.is_dir() else (path,)
    size_bytes = sum(file.stat().st_size for file in files if file.is_file())
    with mlflow_compat.show_progress(f"Uploading {path}", size_bytes) as progress:
        yield progress


def _shared_store() -> ContentStore:
    from mlflow_ipfs.opening import shared_store

    return shared_store()
