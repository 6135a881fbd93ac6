"""Dataset inputs of a run, and the CIDs that their sources name.

MLflow records one source for each (experiment, name, digest): the first one. MLflow computes a digest from a sample of
the rows, so two files can have the same digest. The CID of a record is certain only if the digest is derived from it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.binding import mlflow_compat
from mlflow_ipfs.binding.locations import IPFS, IpfsPath, scheme_of
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.errors import ConflictError, MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow.entities import Dataset, Run

_logger = logging.getLogger(__name__)

CID_FIELD: Final = "ipfs_cid"  # in the profile of a dataset that log_dataset uploaded
DATASETS_TAG: Final = "ipfs.dataset_cids"  # of a run and of a version: CIDs, separated by commas, in the inputs' order
MAX_RUN_TAG_LENGTH: Final = 8000  # width of MLflow's column for the tags of runs
DIGEST_LENGTH: Final = 36  # width of MLflow's column; holds 178 bits of the hash of a CIDv1 in base32


@dataclass(frozen=True, slots=True)
class DatasetInputs:
    """The datasets of a run whose source is ``ipfs://``, or whose profile has a CID (``log_dataset``).

    Attributes:
        cids: the CIDs that are certain, in the order of the inputs.
        uncertain: names of the datasets whose recorded source may be that of another run.
    """

    cids: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()


def dataset_digest(cid: CID) -> str:
    """Return the digest of a dataset with a CID: the last ``DIGEST_LENGTH`` characters of the CID."""
    return str(cid)[-DIGEST_LENGTH:]


def read_dataset_inputs(run_id: str | None, run: Run | None = None) -> DatasetInputs:
    """Return the datasets of a run that have a CID. If the run cannot be read, log a warning and return no datasets.

    Args:
        run_id: the id of the run; None for no run.
        run: the run with that id, if the caller has read it already.
    """
    if not run_id:
        return DatasetInputs()
    try:
        run = run or mlflow_compat.get_run(run_id)
    except Exception:  # noqa: BLE001 - missing lineage must not make the registration fail
        _logger.warning("the datasets of run %s cannot be read; its model version is registered without them", run_id)
        return DatasetInputs()
    for dataset, cid in _datasets_of(run):
        if dataset.digest != dataset_digest(cid):
            _warn(dataset, cid)
    return dataset_inputs_of(run)


def dataset_inputs_of(run: Run) -> DatasetInputs:
    """Return the ``ipfs://`` datasets of a run."""
    found = _datasets_of(run)
    certain = [str(cid) for dataset, cid in found if dataset.digest == dataset_digest(cid)]
    uncertain = [dataset.name for dataset, cid in found if dataset.digest != dataset_digest(cid)]
    return DatasetInputs(tuple(dict.fromkeys(certain)), tuple(dict.fromkeys(uncertain)))


def cid_of_dataset(source: str, profile: str | None) -> CID | None:
    """Return the CID of a recorded dataset: of its ``ipfs://`` source, or in its profile; None if it has none.

    The CID is certain only if the dataset's digest is ``dataset_digest`` of it.
    """
    return _cid_of(source) or _cid_in(profile)


def _datasets_of(run: Run) -> list[tuple[Dataset, CID]]:
    datasets = [given.dataset for given in (run.inputs.dataset_inputs if run.inputs else [])]
    return [
        (dataset, cid) for dataset in datasets if (cid := cid_of_dataset(dataset.source, dataset.profile)) is not None
    ]


def run_tag(datasets: DatasetInputs) -> str | None:
    """Return the value of ``DATASETS_TAG`` for a run; None if it has no dataset, or too many for a tag of MLflow."""
    value = ",".join(datasets.cids)
    if len(value) > MAX_RUN_TAG_LENGTH:
        _logger.warning(
            "the run is not tagged with %s: the CIDs of %d datasets do not fit", DATASETS_TAG, len(datasets.cids)
        )
        return None
    return value or None


def ipfs_datasets(datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the datasets whose source is ``ipfs://``."""
    return [dataset for dataset in datasets if _cid_of(dataset.source) is not None]


def check_sources(datasets: Iterable[Dataset], recorded: Mapping[tuple[str, str], str]) -> None:
    """Check that MLflow will record the CIDs of datasets that are about to be logged to a run.

    Args:
        datasets: in the order in which MLflow gets them; MLflow records the first of each name and digest.
        recorded: the sources that are already recorded in the run's experiment, by name and digest.

    Raises:
        ConflictError: MLflow would record another source.
    """
    known = dict(recorded)
    for dataset in datasets:
        source = known.setdefault((dataset.name, dataset.digest), dataset.source)
        cid = _cid_of(dataset.source)
        if cid is None:
            continue
        if _cid_of(source) != cid:
            msg = (
                f"dataset {dataset.name!r} cannot be logged: with the digest {dataset.digest!r} it already has the source "
                f"{source} in this experiment, so MLflow would not record {dataset.source}. Pass "
                f"digest={dataset_digest(cid)!r} (the end of the CID) or another name to mlflow.data.from_…"
            )
            raise ConflictError(msg)
        if dataset.digest != dataset_digest(cid):
            _warn(dataset, cid)


def _warn(dataset: Dataset, cid: CID) -> None:
    _logger.warning(
        "dataset %r: the digest %r is not derived from the source ipfs://%s, so another file may have the same digest; "
        "model versions will not list the CID. Pass digest=%r (the end of the CID) to mlflow.data.from_…",
        dataset.name,
        dataset.digest,
        cid,
        dataset_digest(cid),
    )


def _cid_in(profile: str | None) -> CID | None:
    try:
        return CID.parse(json.loads(profile or "")[CID_FIELD])
    except (ValueError, KeyError, TypeError, MlflowIpfsError):
        return None


def _cid_of(source: str) -> CID | None:
    try:
        uri = json.loads(source).get("uri", "")
        return IpfsPath.parse(uri).cid if scheme_of(uri) == IPFS else None
    except (ValueError, AttributeError, TypeError, MlflowIpfsError):
        return None  # the source of another plugin, in that plugin's format
