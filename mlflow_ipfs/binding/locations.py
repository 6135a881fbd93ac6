"""The URIs that name content: ``ipfs://``, ``mfs://`` and MLflow's ``mlflow-artifacts:``.

Paths in MLflow's URIs are not percent-encoded: MLflow joins them as plain strings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError

IPFS: Final = "ipfs"
MFS: Final = "mfs"
PROXIED: Final = "mlflow-artifacts"
STORE_PREFIX: Final = "ipfs+"  # of the URIs of this package's tracking and registry stores


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, in lower case; ``""`` for a path."""
    scheme, colon, _ = uri.partition(":")
    return scheme.lower() if colon and "/" not in scheme else ""


def join_path(*parts: str | None) -> str:
    """Join the non-empty parts of a content path with slashes."""
    return "/".join(part.strip("/") for part in parts if part and part.strip("/"))


@dataclass(frozen=True, slots=True)
class IpfsPath:
    """A path of immutable content, ``ipfs://<cid>[/path]``."""

    cid: CID
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> IpfsPath:
        """Parse a URI. MLflow collapses slashes when it joins paths, so ``ipfs:/<cid>`` is accepted too.

        Raises:
            InvalidCIDError: the first component is not a CID, for example a host name.
            InvalidPathError: the URI does not start with ``ipfs:``, or it has a query or fragment.
        """
        if scheme_of(uri) != IPFS:
            msg = f"{uri!r} does not have the form ipfs://<cid>/<path>"
            raise InvalidPathError(msg)
        check_no_query(uri)
        # A URL parser would convert the host name, which is the CID, to lower case; a CIDv0 is case-sensitive.
        text, _, path = uri.partition(":")[2].lstrip("/").partition("/")
        try:
            return cls(CID.parse(text), check_path(path))
        except InvalidCIDError as error:
            msg = f"{uri!r} has no valid CID after ipfs:// ({error}); write ipfs://<cid>/<path>, without a host or gateway"
            raise InvalidCIDError(msg) from error


def check_path(path: str | None) -> str:
    """Check a path below a root, and return it without slashes at its ends.

    Raises:
        InvalidPathError: the path has an empty, ``.`` or ``..`` component, or a NUL character.
    """
    path = (path or "").strip("/")
    if path and ("\0" in path or any(part in {"", ".", ".."} for part in path.split("/"))):
        msg = f"the path {path!r} has an empty, '.' or '..' component or a NUL character; write it without these"
        raise InvalidPathError(msg)
    return path


def check_no_query(uri: str) -> None:
    """Raise if a URI has a query or a fragment: MLflow's URL parser would cut it off.

    Raises:
        InvalidPathError: the URI has a ``?`` or a ``#``.
    """
    if "?" in uri or "#" in uri:
        msg = f"{uri!r} has a '?' or a '#', which MLflow would read as a query or a fragment; use a path without it"
        raise InvalidPathError(msg)


def parse_mfs(uri: str) -> MfsPath:
    """Parse ``mfs://<root>/<path>``.

    Raises:
        InvalidPathError: the URI is malformed, or it has a query or fragment.
    """
    if scheme_of(uri) != MFS or not uri.partition(":")[2].startswith("//"):
        msg = f"{uri!r} does not have the form mfs://<root>/<path>"
        raise InvalidPathError(msg)
    check_no_query(uri)
    root, _, path = uri.partition("://")[2].partition("/")
    return MfsPath(root, check_path(path))


def split_proxied(uri: str) -> tuple[str, str]:
    """Split ``mlflow-artifacts://<host>/<path>`` into host and path. The host of ``mlflow-artifacts:/<path>`` is ``""``.

    Raises:
        InvalidPathError: the URI has a query or fragment, or the path has an empty, ``.`` or ``..`` component.
    """
    check_no_query(uri)
    rest = uri.partition(":")[2]
    if not rest.startswith("//"):
        return "", check_path(rest)
    host, _, path = rest[2:].partition("/")
    return host, check_path(path)


def frozen_uri(mutable: str, cid: CID) -> str:
    """Return the URI of a CID that is frozen below a mutable URI."""
    return f"{mutable.rstrip('/')}/@{cid}"


def before_frozen(uri: str) -> str:
    """Return the mutable URI in ``<mutable>/@<cid>[/path]``. An ``@`` inside a name or in the host is ignored."""
    start = uri.find("://") + len("://") if "://" in uri else 0
    end = uri.find("/@", start)
    return uri if end < 0 else uri[:end]


def split_frozen_uri(uri: str) -> tuple[str, CID] | None:
    """Split ``<mutable>/@<cid>`` into URI and CID. Return None if the URI does not end in ``/@<cid>``."""
    mutable, _, last = uri.rpartition("/")
    if not mutable or not last.startswith("@"):
        return None
    try:
        return mutable, CID.parse(last[1:])
    except InvalidCIDError:
        return None


def cid_of_location(uri: str | None) -> CID | None:
    """Return the CID that a version's ``storage_location`` is frozen to; None if it is not frozen."""
    if not uri:
        return None
    if scheme_of(uri) == IPFS:
        try:
            found = IpfsPath.parse(uri)
        except (InvalidCIDError, InvalidPathError):
            return None
        return found.cid if not found.path else None
    split = split_frozen_uri(uri)
    return split[1] if split else None
