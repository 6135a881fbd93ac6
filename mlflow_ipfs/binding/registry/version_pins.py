"""Pins of model versions, kept consistent with MLflow's database.

The database is authoritative for the versions that exist and their CIDs; the pins in the store follow it. The database
and the store cannot commit in one transaction, so every change has these steps:

1. A *pending* pin is added, for a CID and a mutable path that are about to change.
2. MLflow commits or rolls back.
3. The database is read, and the confirmed pins and frozen paths of the CID are updated to match it.
4. The pending pin is removed.

A process that dies after step 1 leaves the pending pin, which retains the content. The pin's owner names the process's
session in the store, so the next process that opens the registry sees that it died, and runs steps 3 and 4. The database
may still be committing for a process that died just now, so such transactions are awaited before step 3.

While a copy of the database is also in use (``databases/claims.py``), a process cannot determine what the other database
needs. Step 3 then only adds pins and frozen paths. If it would have removed one, the pending pin stays.
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
PENDING_SECONDS: Final = 24 * 3600  # a pin whose process cannot be determined counts as abandoned after this time


@dataclass(frozen=True, slots=True)
class FrozenVersion:
    """A model version that exists and is frozen.

    Attributes:
        name: the registered model's name.
        version: the version's number.
        cid: root of the version's content.
        mutable_path: the content can be read as ``<mutable_path>/@<cid>``; None: it can be read only as
            ``ipfs://<cid>``, or the path is not known here.
    """

    name: str
    version: int
    cid: CID
    mutable_path: MfsPath | None


@dataclass(frozen=True, slots=True)
class Pending:
    """A pending pin: a version may be about to be created, deleted or renamed.

    Attributes:
        pin: the pin in the store. The second part of its owner is ``<time>-<random number>-<session>``.
        mutable_path: the mutable path below which the CID is frozen, if any.
    """

    pin: Pin
    mutable_path: MfsPath | None

    @property
    def age_seconds(self) -> float:
        """The time since the pin was added, as recorded by the wall clock of the process that added it."""
        return time.time() - int(self._fields[0])

    @property
    def session(self) -> str | None:
        """The session of the process that added the pin; None if an earlier version of this package added it."""
        return self._fields[2] if len(self._fields) > 2 else None

    @property
    def _fields(self) -> list[str]:
        return self.pin.owner.split("/")[1].split("-")


class VersionPins:
    """The pins of one registry in one store.

    Args:
        store: the store with the content.
        registry_id: the registry id of the database.
        read_versions: reads from the database the existing versions that are frozen to a CID.
        is_shared: returns True if another database has the same registry id; then no pin or frozen path is removed.
        find_forks: returns the ids of databases that were forked from this one. Their frozen paths contain their ids.
        await_writers: waits until no transaction that had written versions is open in the database. Returns False if one
            is still open after a time limit.
    """

    def __init__(
        self,
        store: ContentStore,
        registry_id: str,
        read_versions: Callable[[CID], Iterable[FrozenVersion]],
        *,
        is_shared: Callable[[], bool] = lambda: False,
        find_forks: Callable[[], AbstractSet[str]] = frozenset,
        await_writers: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._registry_id = registry_id
        self._read_versions = read_versions
        self._is_shared = is_shared
        self._find_forks = find_forks
        self._await_writers = await_writers

    def pending_owner(self, mutable_path: MfsPath | None) -> str:
        """Return a new owner for a pending pin, with the current time, this process's session and the mutable path."""
        session = self._store.storage.session_name()
        owner = f"{PENDING_OWNER}{self._registry_id}/{int(time.time())}-{uuid.uuid4().hex}-{session}"
        return f"{owner}/{mutable_path.root}/{mutable_path.path}" if mutable_path else owner

    @contextmanager
    def changing(self, versions: Iterable[FrozenVersion]) -> Iterator[None]:
        """Claim versions before the body deletes or renames them, and update their pins afterwards."""
        pending = []
        for cid, mutable_path in {(version.cid, version.mutable_path) for version in versions}:
            try:
                pending.append(self.claim(cid, mutable_path))
            except NotFoundError:  # the version may change nevertheless: the store has no content to keep or to delete
                _logger.warning("%s is not in this store, but a model version is frozen to it", cid)
        try:
            yield
        finally:
            for claim in pending:
                self.finish(claim)

    def claim(self, cid: CID, mutable_path: MfsPath | None) -> Pending:
        """Add a pending pin, and a frozen path if ``mutable_path`` is given.

        Raises:
            NotFoundError: the content is not in the store.
        """
        pending = Pending(Pin(self.pending_owner(mutable_path), cid, PinState.PENDING), mutable_path)
        self._store.pins.add(pending.pin)
        if mutable_path is not None:
            self._store.storage.entries.freeze(Frozen(mutable_path.root, mutable_path.path, cid))
        return pending

    def finish(self, pending: Pending) -> None:
        """Update the store to match the database, then remove the pending pin.

        The database has already committed or rolled back, so an error here does not make the caller's change fail. The
        error is logged, and the pending pin stays until the registry is opened again.
        """
        try:
            if self._is_shared():
                if self._add_missing(pending.pin.cid) or self._has_spare_path(pending):
                    return  # the pending pin stays, together with what should be removed
            elif self._confirm(pending):
                return
            else:
                self._update_confirmed(pending.pin.cid)
                self._unfreeze_unneeded(pending)
            self._store.pins.remove(pending.pin.cid, pending.pin.owner)
        except Exception:  # MLflow's database and the store may raise any kind of error
            _logger.warning(
                "the pins of %s could not be updated; its content is kept, and the next process that opens the model "
                "registry tries again",
                pending.pin.cid,
                exc_info=True,
            )

    def _confirm(self, pending: Pending) -> bool:
        """Replace a pending pin by that of the version just created, in one transaction. Return whether this was done.

        It is done if the new version is the only change of the CID's versions, which is the usual case.
        """
        cid = pending.pin.cid
        prefix = f"{OWNER}{self._registry_id}/"
        existing = {pin.owner for pin in self._store.pins.list(owner_prefix=prefix, cid=cid)}
        versions = list(self._read_versions(cid))
        wanted = {f"{prefix}{version.name}/{version.version}" for version in versions}
        missing = wanted - existing
        if len(missing) != 1 or existing - wanted or pending.mutable_path not in {one.mutable_path for one in versions}:
            return False
        for version in versions:
            self._refreeze(version)
        try:
            self._store.pins.replace(pending.pin, Pin(missing.pop(), cid))
        except NotFoundError:  # another process has finished the pending pin
            return False
        return True

    def reconcile(self) -> None:
        """Complete the changes of processes that died. Without pending pins this is cheap."""
        is_shared = self._is_shared()
        found = self._list_pending()
        abandoned = [] if is_shared else [pending for pending in found if self._is_abandoned(pending)]
        if abandoned and not self._await_writers():
            abandoned = []
        for pending in found:
            if is_shared:  # the pending pin may belong to the other database
                self._add_missing(pending.pin.cid)
            elif pending in abandoned:
                self.finish(pending)
            else:  # the process may be alive: update the confirmed pins, and keep the pending pin
                self._update_confirmed(pending.pin.cid)

    def _is_abandoned(self, pending: Pending) -> bool:
        """Return True if the process that added a pending pin has ended without finishing it."""
        if pending.session is not None and not self._store.storage.is_session_open(pending.session):
            return True
        return pending.age_seconds > PENDING_SECONDS

    def _list_pending(self) -> list[Pending]:
        found = []
        for pin in self._store.pins.list(owner_prefix=f"{PENDING_OWNER}{self._registry_id}/"):
            _, _, *parts = pin.owner.split("/", 3)
            found.append(Pending(pin, MfsPath(parts[0], parts[1]) if len(parts) == 2 else None))
        return found

    def _update_confirmed(self, cid: CID) -> None:
        """Update the confirmed pins and frozen paths of a CID to match the versions that exist.

        A pin may be needed again by the time it is removed: a model can be deleted and created again under its old
        name, with the same version number. So the database is read again after every removal.
        """
        while self._update_once(cid):
            pass

    def _update_once(self, cid: CID) -> bool:
        """Add missing pins and remove pins without a version. Return True if a pin was removed."""
        unneeded = self._add_missing(cid)
        for owner in unneeded:
            self._store.pins.remove(cid, owner)
        return bool(unneeded)

    def _add_missing(self, cid: CID) -> set[str]:
        """Add the missing pins and frozen paths of the versions of a CID. Return the owners of pins without a version."""
        prefix = f"{OWNER}{self._registry_id}/"
        # The pins are listed before the database is read: then each listed pin was confirmed before that.
        existing = {pin.owner for pin in self._store.pins.list(owner_prefix=prefix, cid=cid)}
        versions = list(self._read_versions(cid))
        wanted = {f"{prefix}{version.name}/{version.version}" for version in versions}
        for owner in wanted - existing:
            self._store.pins.add(Pin(owner, cid))
        for version in versions:
            self._refreeze(version)
        return existing - wanted

    def _has_spare_path(self, pending: Pending) -> bool:
        """Return True if the CID is frozen below a mutable path for which no version needs it any more."""
        return pending.mutable_path is not None and not self._is_needed(pending)

    def _refreeze(self, version: FrozenVersion) -> None:
        if version.mutable_path is not None:
            frozen = Frozen(version.mutable_path.root, version.mutable_path.path, version.cid)
            if not self._store.storage.entries.is_frozen(frozen):
                self._store.storage.entries.freeze(frozen)

    def _unfreeze_unneeded(self, pending: Pending) -> None:
        """Remove the frozen path if no version needs it any more, and all paths of the CID if no database pins it."""
        cid = pending.pin.cid
        if self._has_spare_path(pending):
            assert pending.mutable_path is not None, "a spare path exists"
            spare = Frozen(pending.mutable_path.root, pending.mutable_path.path, cid)
            self._unfreeze([spare], lambda: self._is_needed(pending))
        if pending.mutable_path is not None and not self._is_pinned_elsewhere(pending):
            paths = [frozen for frozen in self._store.storage.entries.list_frozen() if frozen.cid == cid]
            self._unfreeze(paths, lambda: self._is_pinned_elsewhere(pending))

    def _unfreeze(self, paths: Iterable[Frozen], is_needed: Callable[[], bool]) -> None:
        paths = list(paths)
        for frozen in paths:
            self._store.storage.entries.unfreeze(frozen)
        if is_needed():  # another process froze one again between the check and the removal
            for frozen in paths:
                self._store.storage.entries.freeze(frozen)

    def _is_pinned_elsewhere(self, pending: Pending) -> bool:
        """Return True if a version of any database, or a registration in progress, pins the CID."""
        pins = self._store.pins.list(cid=pending.pin.cid)
        return any(pin.owner.startswith((OWNER, PENDING_OWNER)) for pin in pins if pin.owner != pending.pin.owner)

    def _is_needed(self, pending: Pending) -> bool:
        cid, mutable_path = pending.pin.cid, pending.mutable_path
        others = (other for other in self._list_pending() if other.pin.owner != pending.pin.owner)
        if any(other.pin.cid == cid and other.mutable_path == mutable_path for other in others):
            return True
        if any(version.mutable_path == mutable_path for version in self._read_versions(cid)):
            return True
        return mutable_path is not None and self._may_be_needed_by_another(mutable_path, cid)

    def _may_be_needed_by_another(self, mutable_path: MfsPath, cid: CID) -> bool:
        """Return True if another database may need a frozen path: it pins the CID, and the path names no database.

        The database may be the one that this one was forked from, or a copy from before either had an id.
        """
        if self._registry_id in mutable_path.path.split("/"):
            return False
        ids = {self._registry_id, *self._find_forks()}
        own = tuple(f"{owner}{one}/" for owner in (OWNER, PENDING_OWNER) for one in ids)
        pins = self._store.pins.list(cid=cid)
        return any(pin.owner.startswith((OWNER, PENDING_OWNER)) and not pin.owner.startswith(own) for pin in pins)
