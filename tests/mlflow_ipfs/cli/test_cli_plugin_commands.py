"""Tests of commands that other packages add through the entry-point group ``mlflow_ipfs.commands``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from support.command_line import CommandLine

MODULE = """
import click
from mlflow_ipfs.cli.options import CliContext

@click.command(short_help="Say where the store is.")
@click.pass_obj
def where(cli_context: CliContext) -> None:
    click.echo(cli_context.settings.store)

@click.command()
def add() -> None:
    click.echo("not ours")
"""

ENTRY_POINTS = """
[mlflow_ipfs.commands]
where = shop_of_commands:where
add = shop_of_commands:add
broken = shop_that_is_not_there:command
nothing = shop_of_commands:MISSING
"""


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with four commands, of which one works."""
    site = tmp_path / "site"
    info = site / "shop_of_commands-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shop_of_commands.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-of-commands\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "shop_of_commands", raising=False)


def test_a_command_of_another_package_runs_and_is_listed(cli: CommandLine) -> None:
    assert cli("where").lines == [str(cli.store)]
    assert any(line.split() == ["where", "Say", "where", "the", "store", "is."] for line in cli("--help").lines)


def test_a_built_in_command_is_not_replaced(cli: CommandLine, directory: Path) -> None:
    assert cli("add", "-q", directory).lines[0].startswith("bafybei")


def test_a_broken_command_does_not_affect_the_others(cli: CommandLine) -> None:
    help_text = cli("--help").stdout.decode()
    assert "broken" in help_text
    assert "from shop-of-commands; cannot be" in " ".join(help_text.split())
    outcome = cli("broken", "--any", "thing", code=1)
    assert "the command 'broken' of shop-of-commands cannot be loaded: ModuleNotFoundError" in outcome.stderr


def test_doctor_names_the_broken_ones(cli: CommandLine) -> None:
    commands = {
        record["name"]: record["state"]
        for record in cli("doctor", "--json", code=1).records
        if record["topic"] == "commands"
    }
    assert commands == {"report": "ok", "where": "ok", "add": "problem", "broken": "problem", "nothing": "problem"}
