"""The URIs that name content: ``ipfs://``, ``mfs://`` and MLflow's ``mlflow-artifacts:``.

Paths in MLflow's URIs are plain text, not percent-encoded: MLflow joins them by hand.
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


def scheme_of(uri: str) -> str:
    """The scheme of an URI, in lower case; ``""`` for a path."""
    scheme, colon, _ = uri.partition(":")
    return scheme.lower() if colon and "/" not in scheme else ""


def join_path(*parts: str | None) -> str:
    """Join the parts of a content path that are not empty."""
    return "/".join(part.strip("/") for part in parts if part and part.strip("/"))


@dataclass(frozen=True, slots=True)
class IpfsPath:
    """``ipfs://<cid>[/path]``: immutable content."""

    cid: CID
    path: str = ""

    @classmethod
    def parse(cls, uri: str) -> IpfsPath:
        """Read the URI. MLflow collapses slashes when it joins, so ``ipfs:/<cid>`` is understood too.

        Raises:
            InvalidCIDError: what stands where the CID must be is none, for example a host.
            InvalidPathError: not an ``ipfs://`` URI, or it has a query or fragment.
        """
        if scheme_of(uri) != IPFS:
            msg = f"{uri!r} is not of the form ipfs://<cid>/<path>"
            raise InvalidPathError(msg)
        refuse_query(uri)
        # The CID is not taken from a URL parser's host name: that would lower its case, and a
        # CIDv0 is case-sensitive.
        text, _, path = uri.partition(":")[2].lstrip("/").partition("/")
        try:
            return cls(CID.parse(text), check_path(path))
        except InvalidCIDError as error:
            msg = f"{uri!r}: after ipfs:// there must be a CID; hosts and gateways are never named here ({error})"
            raise InvalidCIDError(msg) from error


def check_path(path: str | None) -> str:
    """Check a path below a root, and drop slashes at its ends.

    Raises:
        InvalidPathError: it has empty, ``.`` or ``..`` parts, or a NUL character.
    """
    path = (path or "").strip("/")
    if path and ("\0" in path or any(part in {"", ".", ".."} for part in path.split("/"))):
        msg = f"the path {path!r} has an empty part, '.', '..' or a NUL character"
        raise InvalidPathError(msg)
    return path


def refuse_query(uri: str) -> None:
    """Refuse what a URL parser would cut off.

    Raises:
        InvalidPathError: the URI has a ``?`` or a ``#``.
    """
    if "?" in uri or "#" in uri:
        msg = f"{uri!r} has a '?' or a '#', which MLflow would take for the start of a query or a fragment"
        raise InvalidPathError(msg)


def parse_mfs(uri: str) -> MfsPath:
    """Read ``mfs://<root>/<path>``.

    Raises:
        InvalidPathError: malformed, or it has a query or fragment.
    """
    if scheme_of(uri) != MFS or not uri.partition(":")[2].startswith("//"):
        msg = f"{uri!r} is not of the form mfs://<root>/<path>"
        raise InvalidPathError(msg)
    refuse_query(uri)
    root, _, path = uri.partition("://")[2].partition("/")
    return MfsPath(root, check_path(path))


def split_proxied(uri: str) -> tuple[str, str]:
    """Take ``mlflow-artifacts://<host>/<path>`` apart; the host is empty in ``mlflow-artifacts:/<path>``.

    Raises:
        InvalidPathError: the path leaves its root.
    """
    refuse_query(uri)
    rest = uri.partition(":")[2]
    if not rest.startswith("//"):
        return "", check_path(rest)
    host, _, path = rest[2:].partition("/")
    return host, check_path(path)


def frozen_uri(mutable: str, cid: CID) -> str:
    """The URI of a CID frozen below a mutable URI."""
    return f"{mutable.rstrip('/')}/@{cid}"


def before_frozen(uri: str) -> str:
    """The mutable URI in ``<mutable>/@<cid>[/path]``. An ``@`` inside a name, or in a host, is nothing special."""
    start = uri.find("://") + len("://") if "://" in uri else 0
    end = uri.find("/@", start)
    return uri if end < 0 else uri[:end]


def split_frozen_uri(uri: str) -> tuple[str, CID] | None:
    """Take ``<mutable>/@<cid>`` apart. None if it does not end like that."""
    mutable, _, last = uri.rpartition("/")
    if not mutable or not last.startswith("@"):
        return None
    try:
        return mutable, CID.parse(last[1:])
    except InvalidCIDError:
        return None


def cid_of_location(uri: str | None) -> CID | None:
    """The CID that a version's ``storage_location`` is frozen to, or None if it is not frozen."""
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
