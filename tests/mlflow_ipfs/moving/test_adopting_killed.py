"""`kill -9` at each step of an adoption: every location works at any time, and the next pass continues."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.stock_sites import read_site

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine
    from support.stock_sites import StockSite

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(("options", "stride"), [((), 7), (("--remove-source",), 11)])
def test_every_location_works_after_a_kill_at_any_step(
    cli: CommandLine, site: StockSite, options: tuple[str, ...], stride: int, pytestconfig: pytest.Config
) -> None:
    site.fill()
    before = read_site(site.uri)
    done = subprocess.run(
        [sys.executable, "-m", "support.killed_adoption", site.uri, str(stride), *options],
        env=cli.environment | {"PYTHONPATH": _path(pytestconfig.rootpath)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) >= 8  # kills
    assert read_site(f"ipfs+{site.uri}") == before
    assert not any(uri.startswith("/") for (uri,) in site.query("SELECT storage_location FROM model_versions"))
    assert cli("doctor").code == 0


def _path(root: Path) -> str:
    return os.pathsep.join([str(root), str(root / "tests")])
