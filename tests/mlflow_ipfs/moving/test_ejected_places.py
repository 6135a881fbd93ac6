"""The place below a directory for each location in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError
from mlflow_ipfs.moving.ejected_places import EjectedPlaces, StoredPlace

DATA = CID.parse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
RUN = "1/0123456789abcdef0123456789abcdef/artifacts"


def places(*, base: MfsPath | None = None, for_server: bool = False, directory: str = "/data/plain") -> EjectedPlaces:
    return EjectedPlaces(Path(directory), "id", base, for_server=for_server)


@pytest.mark.parametrize(
    ("base", "location", "path"),
    [
        (None, "mfs://mlflow/id/1", "1"),
        (None, f"mfs://mlflow/id/{RUN}", RUN),
        (None, f"mfs://team/id/{RUN}", RUN),
        (None, f"mfs://mlflow/other/{RUN}", f"mlflow/other/{RUN}"),
        (None, f"mfs://mlflow/idx/{RUN}", f"mlflow/idx/{RUN}"),
        (None, "mfs://mlflow/id", ""),
        (MfsPath("mlflow"), f"mlflow-artifacts:/{RUN}", RUN),
        (MfsPath("mlflow"), f"mfs://mlflow/{RUN}", RUN),
        (MfsPath("mlflow"), f"mlflow-artifacts:/id/{RUN}", RUN),
        (MfsPath("mlflow", "a/b"), f"mlflow-artifacts:/{RUN}", RUN),
        (MfsPath("mlflow", "a/b"), f"mfs://mlflow/a/{RUN}", f"mlflow/a/{RUN}"),
        (MfsPath("mlflow"), "mlflow-artifacts:/", ""),
    ],
)
def test_the_path_of_a_mutable_location(base: MfsPath | None, location: str, path: str) -> None:
    found = places(base=base).find(location)
    assert found is not None
    assert found.mutable is not None
    assert places(base=base).path_of(found.mutable) == path


def test_frozen_content_has_a_directory_beside_the_artifacts() -> None:
    rule = places()
    found = rule.find(f"mfs://mlflow/id/{RUN}/model/@{DATA}/sub/file")
    assert found == StoredPlace(MfsPath("mlflow", f"id/{RUN}/model"), DATA, "sub/file")
    assert rule.frozen_path_of(found) == f"{RUN.removesuffix('/artifacts')}/frozen/{DATA}"
    without_run = rule.find(f"mfs://mlflow/id/0/registry/id/@{DATA}")
    assert without_run is not None
    assert rule.frozen_path_of(without_run) == f"0/registry/id/frozen/{DATA}"
    immutable = rule.find(f"ipfs://{DATA}/model")
    assert immutable == StoredPlace(None, DATA, "model")
    assert rule.frozen_path_of(immutable) == f"0/registry/{DATA}"


@pytest.mark.parametrize(
    "location", ["/data/mlruns/1", "file:///data/1", "s3://bucket/1", "runs:/1/model", "mlflow-artifacts:/1"]
)
def test_other_locations_mean_nothing_in_the_store(location: str) -> None:
    assert places().find(location) is None


@pytest.mark.parametrize(
    "location", ["mfs://mlflow/a/../b", "mfs://mlflow/a/@nocid", "mfs:/a", "ipfs://host/a", "mfs://mlflow/a?b"]
)
def test_malformed_locations_raise(location: str) -> None:
    with pytest.raises((InvalidCIDError, InvalidPathError)):
        places().find(location)


def test_the_new_location_is_a_path_a_uri_or_a_servers() -> None:
    assert places().uri_of("1/a") == "/data/plain/1/a"
    assert places(directory="/data/50% #").uri_of("1/ü") == "file:///data/50%25%20%23/1/%C3%BC"
    assert places().uri_of("1/a", "mlflow-artifacts:/1/a") == "mlflow-artifacts:/1/a"
    assert places(for_server=True).uri_of("1/a", "mfs://mlflow/id/1/a") == "mlflow-artifacts:/1/a"
