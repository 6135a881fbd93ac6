"""Tags that show in MLflow's UI the CID that a model version is frozen to, and the CIDs of its datasets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mlflow.entities.model_registry import ModelVersionTag

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.dataset_inputs import DATASETS_TAG, run_tag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlflow_ipfs.binding.dataset_inputs import DatasetInputs
    from mlflow_ipfs.binding.registry.freeze import FrozenModel

_logger = logging.getLogger(__name__)

CID_TAG: Final = "ipfs.cid"
SIZE_TAG: Final = "ipfs.size_bytes"
UNCERTAIN_TAG: Final = "ipfs.datasets_uncertain"  # names of datasets whose CID is not certain, separated by commas
FROZEN_TAG: Final = "ipfs.frozen"
REASON_TAG: Final = "ipfs.unfrozen_reason"
RESERVED: Final = frozenset({CID_TAG, SIZE_TAG, DATASETS_TAG, UNCERTAIN_TAG, FROZEN_TAG, REASON_TAG})
MAX_REASON_LENGTH: Final = 1000


def frozen_tags(
    given: Iterable[ModelVersionTag] | None, model: FrozenModel, datasets: DatasetInputs
) -> list[ModelVersionTag]:
    """Return the caller's tags with the tags of a frozen version.

    The caller's reserved tags are dropped: a copied version has those of its original.
    """
    reserved = {CID_TAG: str(model.cid), SIZE_TAG: str(model.size_bytes)}
    if datasets.cids:
        reserved[DATASETS_TAG] = ",".join(datasets.cids)
    if datasets.uncertain:
        reserved[UNCERTAIN_TAG] = ", ".join(datasets.uncertain)
    return _merge(given, reserved)


def tag_run(run_id: str | None, datasets: DatasetInputs) -> None:
    """Tag a version's run with its datasets, as the version is tagged. Log a failure: the version exists already."""
    value = run_tag(datasets)
    if not run_id or not value:
        return
    try:
        mlflow_compat.set_run_tag(run_id, DATASETS_TAG, value)
    except Exception as error:  # noqa: BLE001 - MLflow's client and database may raise any kind of error
        _logger.warning("run %s could not be tagged with %s=%s: %s", run_id, DATASETS_TAG, value, error)


def unfrozen_tags(given: Iterable[ModelVersionTag] | None, reason: str) -> list[ModelVersionTag]:
    """Return the caller's tags with the tags of a version that is not frozen, which give the reason."""
    return _merge(given, {FROZEN_TAG: "false", REASON_TAG: reason[:MAX_REASON_LENGTH]})


def without_reserved(given: Iterable[ModelVersionTag] | None) -> list[ModelVersionTag]:
    """Return the caller's tags without the tags that only the registration may write."""
    return [tag for tag in given or () if tag.key not in RESERVED]


def _merge(given: Iterable[ModelVersionTag] | None, reserved: dict[str, str]) -> list[ModelVersionTag]:
    return without_reserved(given) + [ModelVersionTag(key, value) for key, value in reserved.items()]
