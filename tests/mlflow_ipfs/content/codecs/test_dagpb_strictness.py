"""What Kubo refuses to decode as dag-pb, we refuse; and what it decodes, we decode, with one exception."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_ipfs.content.car.format import encode_car_block, encode_car_header
from mlflow_ipfs.content.cid import CID, DAG_PB
from mlflow_ipfs.content.codecs.dag_pb import decode_node
from mlflow_ipfs.errors import InvalidDataError
from support.dagpb_cases import CASES, Case
from support.kubo import KuboCommandError

if TYPE_CHECKING:
    from pathlib import Path

    from support.kubo import KuboRepository


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_we_decode_what_kubo_decodes(case: Case) -> None:
    try:
        decode_node(case.block)
        is_read = True
    except InvalidDataError:
        is_read = False
    assert is_read == case.we_read


@pytest.mark.kubo
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kubo_judges_as_recorded(case: Case, kubo_v1: KuboRepository, tmp_path: Path) -> None:
    """Importing a CAR decodes each block; of what was put without that, `dag get` decodes it."""
    cid = CID.of(case.block, DAG_PB)
    car = tmp_path / "case.car"
    car.write_bytes(encode_car_header([cid]) + encode_car_block(cid, case.block))
    verdicts = set()
    for arguments in (("dag", "import", "--pin-roots=false", car), ("dag", "get", str(cid))):
        try:
            kubo_v1("block", "put", "--cid-codec=dag-pb", stdin=case.block)
            kubo_v1(*arguments)
            verdicts.add(True)
        except KuboCommandError:
            verdicts.add(False)
    assert verdicts == {case.kubo_reads}
