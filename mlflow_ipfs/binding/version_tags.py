"""Tags that show in MLflow's own UI what a model version is frozen to, and what data it came from."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from mlflow.entities.model_registry import ModelVersionTag

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import IPFS, IpfsPath, scheme_of
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_ipfs.binding.freeze import FrozenModel

_logger = logging.getLogger(__name__)

CID_TAG: Final = "ipfs.cid"
SIZE_TAG: Final = "ipfs.size_bytes"
DATASETS_TAG: Final = "ipfs.dataset_cids"  # separated by commas, in the order of the run's inputs
FROZEN_TAG: Final = "ipfs.frozen"
REASON_TAG: Final = "ipfs.unfrozen_reason"
RESERVED: Final = frozenset({CID_TAG, SIZE_TAG, DATASETS_TAG, FROZEN_TAG, REASON_TAG})
MAX_REASON_LENGTH: Final = 1000


def frozen_tags(
    given: Iterable[ModelVersionTag] | None, model: FrozenModel, run_id: str | None
) -> list[ModelVersionTag]:
    """The caller's tags with ours; ours win, as a copied version brings those of its original."""
    ours = {CID_TAG: str(model.cid), SIZE_TAG: str(model.size_bytes)}
    if datasets := dataset_cids(run_id):
        ours[DATASETS_TAG] = ",".join(datasets)
    return _merge(given, ours)


def unfrozen_tags(given: Iterable[ModelVersionTag] | None, reason: str) -> list[ModelVersionTag]:
    """Return the caller's tags with the mark of a version that is not frozen, and the reason."""
    return _merge(given, {FROZEN_TAG: "false", REASON_TAG: reason[:MAX_REASON_LENGTH]})


def without_reserved(given: Iterable[ModelVersionTag] | None) -> list[ModelVersionTag]:
    """Return the caller's tags without those that only the registration writes."""
    return [tag for tag in given or () if tag.key not in RESERVED]


def _merge(given: Iterable[ModelVersionTag] | None, ours: dict[str, str]) -> list[ModelVersionTag]:
    return without_reserved(given) + [ModelVersionTag(key, value) for key, value in ours.items()]


def dataset_cids(run_id: str | None) -> list[str]:
    """The CIDs of a run's dataset inputs whose source is ``ipfs://``; none if the run can't be read."""
    if not run_id:
        return []
    try:
        run = mlflow_compat.get_run(run_id)
    except Exception:  # noqa: BLE001 - lineage is a help, never a reason to fail a registration
        _logger.warning("the datasets of run %s can't be read, so its model version does not name them", run_id)
        return []
    inputs = run.inputs.dataset_inputs if run.inputs else []
    found = (_cid_of_source(given.dataset.source) for given in inputs)
    return list(dict.fromkeys(cid for cid in found if cid))


def _cid_of_source(source: str) -> str | None:
    try:
        uri = json.loads(source).get("uri", "")
        return str(IpfsPath.parse(uri).cid) if scheme_of(uri) == IPFS else None
    except (ValueError, AttributeError, TypeError, MlflowIpfsError):
        return None  # the source of another plugin; its text is its own affair
