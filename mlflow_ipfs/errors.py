"""The error tree.

::

    MlflowIpfsError(Exception)
    ├── InvalidCIDError(ValueError)        text or bytes are not a CID that we may use
    ├── InvalidPathError(ValueError)       a content path, an URI or a name in a directory is malformed or unsafe
    ├── InvalidDataError(ValueError)       block or CAR bytes break their format or a limit
    ├── SettingsError(ValueError)          a setting has no usable value
    ├── NotFoundError(FileNotFoundError)   no block, path, pin, ref or entry of that name
    ├── NotDirectoryError(NotADirectoryError)  a directory was needed, the path names a file
    ├── IsDirectoryError(IsADirectoryError)  a file was needed, the path names a directory
    ├── IntegrityError(OSError)            bytes do not match their CID
    ├── SourceChangedError(OSError)        a file changed while it was read
    ├── ImmutableError(PermissionError)    a write to immutable content
    ├── PolicyError(PermissionError)       refused by a setting, or by the owner and mode of a file
    ├── ConflictError(FileExistsError)     compare-and-swap lost, or a name is taken by something else
    ├── StoreBusyError(TimeoutError)       a lock was not free within the limit
    ├── StoreFullError(OSError)            the disk under the store is full
    ├── DiskError(OSError)                 a disk does not read or write what it is told to
    ├── StoreFormatError(RuntimeError)     not a store, or one that this version cannot open
    └── RemoteError(ConnectionError)       another node or server failed

Every class has a built-in parent, so that code without knowledge of this package still catches it. A
message says what happened, to which CID or path, and what to do. ``transient`` says whether trying again can help.
"""

from __future__ import annotations


class MlflowIpfsError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        transient: whether the same call may succeed later without anyone changing anything. Set by the class; a
            ``RemoteError`` may state otherwise for one error.
    """

    transient: bool = False


class InvalidCIDError(MlflowIpfsError, ValueError):
    """Text or bytes are not a CID, or name a hash function that is not safe to verify with."""


class InvalidPathError(MlflowIpfsError, ValueError):
    """A content path, URI or name is malformed, or would leave its directory."""


class InvalidDataError(MlflowIpfsError, ValueError):
    """Block or CAR bytes do not follow their format, or exceed a limit."""


class SettingsError(MlflowIpfsError, ValueError):
    """A setting has a value that cannot be used."""


class NotFoundError(MlflowIpfsError, FileNotFoundError):
    """No such block, path, pin, ref or entry."""


class NotDirectoryError(MlflowIpfsError, NotADirectoryError):
    """A directory was needed and the path names something else."""


class IsDirectoryError(MlflowIpfsError, IsADirectoryError):
    """A file was needed and the path names a directory."""


class IntegrityError(MlflowIpfsError, OSError):
    """Bytes do not match the CID that names them."""


class SourceChangedError(MlflowIpfsError, OSError):
    """A file changed while it was being read, so no CID would describe it. Its writer has to finish first."""


class ImmutableError(MlflowIpfsError, PermissionError):
    """A write was asked of content that cannot change."""


class PolicyError(MlflowIpfsError, PermissionError):
    """The operator's settings, or the owner and mode of a file, refuse this."""


class ConflictError(MlflowIpfsError, FileExistsError):
    """Another process changed the name first, or the name is taken: by a file, or by a dataset with another source."""


class StoreBusyError(MlflowIpfsError, TimeoutError):
    """A lock of the store was not free within the time limit."""

    transient = True


class StoreFullError(MlflowIpfsError, OSError):
    """The disk that holds the store has no room left."""


class DiskError(MlflowIpfsError, OSError):
    """A disk failed to read or to write (EIO); one that it was not let is a ``PolicyError``."""


class StoreFormatError(MlflowIpfsError, RuntimeError):
    """The directory is not a store, or its format or file system is not one that we can use."""


class RemoteError(MlflowIpfsError, ConnectionError):
    """Another node or server could not be reached, or its answer was unusable.

    Args:
        message: what happened.
        transient: False if trying again cannot help, for example after a refused login.
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient
