"""Hierarchy of the errors that this package raises.

::

    MlflowIpfsError(Exception)
    ├── InvalidCIDError(ValueError)        text or bytes are not a usable CID
    ├── InvalidPathError(ValueError)       a content path, a URI or the name of an entry is malformed or unsafe
    ├── InvalidDataError(ValueError)       block or CAR bytes violate their format or a limit
    ├── SettingsError(ValueError)          the value of a setting cannot be used
    ├── NotFoundError(FileNotFoundError)   a block, path, pin, ref or entry does not exist
    ├── NotDirectoryError(NotADirectoryError)  a directory is required, but the path names a file
    ├── IsDirectoryError(IsADirectoryError)  a file is required, but the path names a directory
    ├── IntegrityError(OSError)            bytes do not match their CID
    ├── SourceChangedError(OSError)        a file changed while it was read
    ├── ImmutableError(PermissionError)    a write to immutable content
    ├── PolicyError(PermissionError)       forbidden by a setting, or by the owner and mode of a file
    ├── ConflictError(FileExistsError)     a compare-and-swap failed, or a name is already in use
    ├── StoreBusyError(TimeoutError)       a lock was not acquired within the time limit
    ├── StoreFullError(OSError)            the disk under the store is full
    ├── DiskError(OSError)                 a disk failed to read or write
    ├── StoreFormatError(RuntimeError)     not a store, or a store that this version cannot open
    └── RemoteError(ConnectionError)       another node or server failed

Every class has a built-in parent, so that code which does not know this package still catches it. A message says what
happened, to which CID or path, and what to do. ``transient`` says whether trying again can help.
"""

from __future__ import annotations


class MlflowIpfsError(Exception):
    """Base class of every error that this package raises deliberately.

    Attributes:
        transient: whether the same call may succeed later without any change by the user. Set by the class; a
            ``RemoteError`` may override it for one error.
    """

    transient: bool = False


class InvalidCIDError(MlflowIpfsError, ValueError):
    """Text or bytes that are not a CID, or a CID whose hash function is not safe for verification."""


class InvalidPathError(MlflowIpfsError, ValueError):
    """A content path, URI or name that is malformed, or that would leave its directory."""


class InvalidDataError(MlflowIpfsError, ValueError):
    """Block or CAR bytes that violate their format, or exceed a limit."""


class SettingsError(MlflowIpfsError, ValueError):
    """A setting whose value cannot be used."""


class NotFoundError(MlflowIpfsError, FileNotFoundError):
    """A block, path, pin, ref or entry that does not exist."""


class NotDirectoryError(MlflowIpfsError, NotADirectoryError):
    """A path that does not name a directory where a directory is required."""


class IsDirectoryError(MlflowIpfsError, IsADirectoryError):
    """A path that names a directory where a file is required."""


class IntegrityError(MlflowIpfsError, OSError):
    """Bytes that do not match the CID that names them."""


class SourceChangedError(MlflowIpfsError, OSError):
    """A file that changed while it was read, so that no CID describes it. Its writer must finish first."""


class ImmutableError(MlflowIpfsError, PermissionError):
    """A write to content that cannot change."""


class PolicyError(MlflowIpfsError, PermissionError):
    """An operation that the operator's settings, or the owner and mode of a file, forbid."""


class ConflictError(MlflowIpfsError, FileExistsError):
    """A name that another process changed first, or that a file or a dataset with another source already uses."""


class StoreBusyError(MlflowIpfsError, TimeoutError):
    """A lock of the store that was not acquired within the time limit."""

    transient = True


class StoreFullError(MlflowIpfsError, OSError):
    """A lack of free space on the disk that holds the store."""


class DiskError(MlflowIpfsError, OSError):
    """A failure of a disk to read or write (EIO). A denied permission raises ``PolicyError`` instead."""


class StoreFormatError(MlflowIpfsError, RuntimeError):
    """The directory is not a store, or it is a store that this version cannot open.

    Attributes:
        is_newer: whether a newer version of mlflow-ipfs wrote the store, so that this one can neither open nor repair it.
    """

    is_newer = False


class RemoteError(MlflowIpfsError, ConnectionError):
    """A node or server that could not be reached, or that gave an unusable answer.

    Args:
        message: what happened.
        transient: False if trying again cannot help, for example after a rejected login.
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient
