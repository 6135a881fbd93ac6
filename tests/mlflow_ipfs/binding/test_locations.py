from __future__ import annotations

import pytest
from mlflow.utils.uri import append_to_uri_path

from mlflow_ipfs.binding.locations import (
    IpfsPath,
    check_path,
    cid_of_location,
    frozen_uri,
    join_path,
    parse_mfs,
    scheme_of,
    split_frozen_uri,
    split_proxied,
)
from mlflow_ipfs.content.cid import CID
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError

V0 = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"
V1 = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


@pytest.mark.parametrize("cid", [V0, V1])
@pytest.mark.parametrize("path", ["", "model", "a/b/c", "a b/ü"])
def test_ipfs_uris_keep_cid_and_path(cid: str, path: str) -> None:
    assert IpfsPath.parse(f"ipfs://{cid}/{path}".rstrip("/")) == IpfsPath(CID.parse(cid), path)


def test_a_cid_of_version_0_keeps_its_case() -> None:
    assert str(IpfsPath.parse(f"ipfs://{V0}/x").cid) == V0


@pytest.mark.parametrize("uri", [f"ipfs:///{V1}/a", f"ipfs:/{V1}/a", append_to_uri_path(f"ipfs:///{V1}", "a")])
def test_slashes_that_mlflow_collapses_are_understood(uri: str) -> None:
    assert IpfsPath.parse(uri) == IpfsPath(CID.parse(V1), "a")


@pytest.mark.parametrize(
    "uri", ["ipfs://gateway.example.com/model", "ipfs://127.0.0.1:8080/x", "ipfs://localhost", "ipfs://", "ipfs:///"]
)
def test_a_host_is_refused(uri: str) -> None:
    with pytest.raises(InvalidCIDError, match="CID"):
        IpfsPath.parse(uri)


@pytest.mark.parametrize("path", ["../x", "a/../b", "a//b", "./a", "a/.", "a\0b"])
def test_paths_that_leave_their_root_are_refused(path: str) -> None:
    for call in (
        lambda: check_path(path),
        lambda: IpfsPath.parse(f"ipfs://{V1}/{path}"),
        lambda: parse_mfs(f"mfs://root/{path}"),
        lambda: split_proxied(f"mlflow-artifacts:/{path}"),
    ):
        with pytest.raises(InvalidPathError):
            call()


@pytest.mark.parametrize("uri", [f"ipfs://{V1}/a?b", f"ipfs://{V1}/a#b"])
def test_what_a_url_parser_would_cut_off_is_refused(uri: str) -> None:
    with pytest.raises(InvalidPathError, match="query or a fragment"):
        IpfsPath.parse(uri)
    with pytest.raises(InvalidPathError, match="query or a fragment"):
        parse_mfs(uri.replace("ipfs", "mfs"))


def test_mfs_paths_are_plain_text() -> None:
    assert parse_mfs("mfs://Root/1/a%20b/") == MfsPath("Root", "1/a%20b")
    assert str(parse_mfs("mfs://root")) == "mfs://root"


@pytest.mark.parametrize("uri", ["mfs:/root/a", "mfs:///a", "mfs://", "s3://bucket/a", "/a"])
def test_mfs_needs_a_root(uri: str) -> None:
    with pytest.raises(InvalidPathError):
        parse_mfs(uri)


def test_proxied_uris_may_name_a_host() -> None:
    assert split_proxied("mlflow-artifacts:/1/run/artifacts") == ("", "1/run/artifacts")
    assert split_proxied("mlflow-artifacts:///1/run/artifacts") == ("", "1/run/artifacts")
    assert split_proxied("mlflow-artifacts://other:5000/1/run") == ("other:5000", "1/run")


def test_frozen_uris_come_apart_again() -> None:
    cid = CID.parse(V1)
    for mutable in ("mfs://root/1/models/m-1/artifacts", "mlflow-artifacts:/1/models/m-1/artifacts"):
        assert split_frozen_uri(frozen_uri(mutable, cid)) == (mutable, cid)
    assert split_frozen_uri("mfs://root/a/@nocid") is None
    assert split_frozen_uri("mfs://root/a/b") is None


def test_the_cid_of_a_storage_location() -> None:
    assert cid_of_location(f"mfs://root/1/@{V1}") == CID.parse(V1)
    assert cid_of_location(f"mlflow-artifacts:/1/@{V0}") == CID.parse(V0)
    assert cid_of_location(f"ipfs://{V1}") == CID.parse(V1)
    for unfrozen in (None, "", "mfs://root/1", f"ipfs://{V1}/model", "s3://bucket/x", "ipfs://host"):
        assert cid_of_location(unfrozen) is None


def test_schemes() -> None:
    assert scheme_of("IPFS://x") == "ipfs"
    assert scheme_of("/a:b") == ""
    assert scheme_of("a/b:c") == ""
    assert join_path("a/", None, "", "/b/c") == "a/b/c"
