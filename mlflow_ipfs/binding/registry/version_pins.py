"""Pins of model versions, kept true to MLflow's database.

The database says which versions exist and what they are frozen to; the pins in the store follow.
Two systems can't commit as one, so every change runs like this:

1. a *pending* pin is added: something is going on with this CID at this mutable_path;
2. MLflow commits, or not;
3. the database is asked, and the pins and frozen paths of the CID are made to agree with it;
4. the pending pin goes.

A process that dies in between leaves the pending pin. It keeps the bytes, and the next process
that opens the registry does steps 3 and 4 for it.

While a copy of the database is in use, too (``database_claims.py``), one database can't tell what the other needs:
step 3 only adds, and where it would have dropped something, the pending pin stays.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.names.entries import Frozen
from mlflow_ipfs.content.names.pins import Pin, PinState
from mlflow_ipfs.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from mlflow_ipfs.content.cid import CID
    from mlflow_ipfs.content.store import ContentStore

_logger = logging.getLogger(__name__)

OWNER: Final = "model-version:"
PENDING_OWNER: Final = "model-version-pending:"
PENDING_SECONDS: Final = 24 * 3600  # no database transaction takes that long; bytes kept a day too long do no harm


@dataclass(frozen=True, slots=True)
class FrozenVersion:
    """A model version that exists, and what it is frozen to.

    Attributes:
        name: the registered model's name.
        version: the version's number.
        cid: root of its content.
        mutable_path: where it may be read as ``<mutable_path>/@<cid>``; None: only as ``ipfs://<cid>``, or not known here.
    """

    name: str
    version: int
    cid: CID
    mutable_path: MfsPath | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A pending pin: the claim that a version may be coming, going or changing its name.

    Attributes:
        pin: as it stands in the store.
        mutable_path: the frozen path that belongs to it, if any.
    """

    pin: Pin
    mutable_path: MfsPath | None

    @property
    def age_seconds(self) -> float:
        """How long ago it was made, by the wall clock of whoever made it."""
        made = self.pin.owner.split("/")[1].partition("-")[0]
        return time.time() - int(made)


class VersionPins:
    """The pins of one registry in one store.

    Args:
        store: where the content is.
        registry_id: of the database.
        read_versions: asks the database for the versions that exist and are frozen to a CID.
        is_shared: tells whether another database has the same registry id, so that nothing may be dropped.
        former_ids: tells the ids of the databases that this one was forked from.
    """

    def __init__(
        self,
        store: ContentStore,
        registry_id: str,
        read_versions: Callable[[CID], Iterable[FrozenVersion]],
        *,
        is_shared: Callable[[], bool] = lambda: False,
        former_ids: Callable[[], AbstractSet[str]] = frozenset,
    ) -> None:
        self._store = store
        self._registry_id = registry_id
        self._read_versions = read_versions
        self._is_shared = is_shared
        self._former_ids = former_ids

    def pending_owner(self, mutable_path: MfsPath | None) -> str:
        """A new owner for a pending pin. It says when it was made and which frozen path belongs to it."""
        owner = f"{PENDING_OWNER}{self._registry_id}/{int(time.time())}-{uuid.uuid4().hex}"
        return f"{owner}/{mutable_path.root}/{mutable_path.path}" if mutable_path else owner

    @contextmanager
    def changing(self, versions: Iterable[FrozenVersion]) -> Iterator[None]:
        """Announce that versions are about to go or to change their name, and settle it afterwards."""
        pending = []
        for cid, mutable_path in {(version.cid, version.mutable_path) for version in versions}:
            try:
                pending.append(self.claim(cid, mutable_path))
            except NotFoundError:  # the version may go nevertheless: there is nothing to keep or to drop
                _logger.warning("%s, which a model version is frozen to, is not in this store", cid)
        try:
            yield
        finally:
            for claim in pending:
                self.finish(claim)

    def claim(self, cid: CID, mutable_path: MfsPath | None) -> Pending:
        """Add a pending pin, and the frozen path if there is a mutable_path.

        Raises:
            NotFoundError: the content is not in the store.
        """
        pending = Pending(Pin(self.pending_owner(mutable_path), cid, PinState.PENDING), mutable_path)
        self._store.pins.add(pending.pin)
        if mutable_path is not None:
            self._store.storage.entries.freeze(Frozen(mutable_path.root, mutable_path.path, cid))
        return pending

    def finish(self, pending: Pending) -> None:
        """Make the store agree with the database, then drop the pending pin.

        The database has already decided, so trouble here is no error of the caller's: it is logged,
        and the pending pin stays until the registry is opened again.
        """
        try:
            if self._is_shared():
                if self._add_missing(pending.pin.cid) or self._has_spare_path(pending):
                    return  # the pending pin stays, and what should go with it
            else:
                self._settle(pending.pin.cid)
                self._unfreeze_path(pending)
            self._store.pins.remove(pending.pin.cid, pending.pin.owner)
        except Exception:  # any kind: MLflow's database or the store
            _logger.warning(
                "the pins of %s could not be brought up to date; its bytes stay, and the next process that opens "
                "the registry tries again",
                pending.pin.cid,
                exc_info=True,
            )

    def reconcile(self) -> None:
        """Do what processes that died left undone. Cheap when there is nothing."""
        is_shared = self._is_shared()
        for pending in self._list_pending():
            if is_shared:  # the other database's, perhaps
                self._add_missing(pending.pin.cid)
            elif pending.age_seconds > PENDING_SECONDS:
                self.finish(pending)
            else:  # perhaps alive: only what is true in any case
                self._settle(pending.pin.cid)

    def _list_pending(self) -> list[Pending]:
        found = []
        for pin in self._store.pins.list(owner_prefix=f"{PENDING_OWNER}{self._registry_id}/"):
            _, _, *parts = pin.owner.split("/", 3)
            found.append(Pending(pin, MfsPath(parts[0], parts[1]) if len(parts) == 2 else None))
        return found

    def _settle(self, cid: CID) -> None:
        """Let the confirmed pins and frozen paths of a CID be those of the versions that exist.

        A pin that goes may be wanted again by the time it is gone: a model can be deleted and made
        anew under its old name, with the same version number. So after every removal it looks again.
        """
        while self._settle_once(cid):
            pass

    def _settle_once(self, cid: CID) -> bool:
        """Returns whether a pin was removed."""
        unwanted = self._add_missing(cid)
        for owner in unwanted:
            self._store.pins.remove(cid, owner)
        return bool(unwanted)

    def _add_missing(self, cid: CID) -> set[str]:
        """Add the pins and frozen paths that the versions of a CID lack. Returns the owners of pins without a version."""
        prefix = f"{OWNER}{self._registry_id}/"
        # The order matters: a pin that is seen here was confirmed before the database is read.
        existing = {pin.owner for pin in self._store.pins.list(owner_prefix=prefix, cid=cid)}
        versions = list(self._read_versions(cid))
        wanted = {f"{prefix}{version.name}/{version.version}" for version in versions}
        for owner in wanted - existing:
            self._store.pins.add(Pin(owner, cid))
        for version in versions:
            self._refreeze(version)
        return existing - wanted

    def _has_spare_path(self, pending: Pending) -> bool:
        """Tell whether there is a frozen path that no version of this database needs any more."""
        return pending.mutable_path is not None and not self._is_needed(pending)

    def _refreeze(self, version: FrozenVersion) -> None:
        if version.mutable_path is not None:
            frozen = Frozen(version.mutable_path.root, version.mutable_path.path, version.cid)
            if not self._store.storage.entries.is_frozen(frozen):
                self._store.storage.entries.freeze(frozen)

    def _unfreeze_path(self, pending: Pending) -> None:
        """Withdraw a frozen path that no version needs any more."""
        if not self._has_spare_path(pending):
            return
        assert pending.mutable_path is not None, "it has a path"
        mutable_path, cid = pending.mutable_path, pending.pin.cid
        self._store.storage.entries.unfreeze(Frozen(mutable_path.root, mutable_path.path, cid))
        if self._is_needed(pending):  # somebody froze it anew between the question and the unfreeze
            self._store.storage.entries.freeze(Frozen(mutable_path.root, mutable_path.path, cid))

    def _is_needed(self, pending: Pending) -> bool:
        cid, mutable_path = pending.pin.cid, pending.mutable_path
        others = (other for other in self._list_pending() if other.pin.owner != pending.pin.owner)
        if any(other.pin.cid == cid and other.mutable_path == mutable_path for other in others):
            return True
        if any(version.mutable_path == mutable_path for version in self._read_versions(cid)):
            return True
        return mutable_path is not None and self._may_need_original(mutable_path, cid)

    def _may_need_original(self, mutable_path: MfsPath, cid: CID) -> bool:
        """Tell whether the database that this one was forked from may need a frozen path.

        It does if it pins the CID, unless the path has this database's id in it.
        """
        if self._registry_id in mutable_path.path.split("/"):
            return False
        prefixes = tuple(f"{owner}{one}/" for one in self._former_ids() for owner in (OWNER, PENDING_OWNER))
        return bool(prefixes) and any(pin.owner.startswith(prefixes) for pin in self._store.pins.list(cid=cid))
