"""Cost of imports: MLflow loads the plugin modules at its own import, in every process of every user."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

FRAMEWORKS = {"keras", "lightning", "matplotlib", "plotly", "pytorch_lightning", "sklearn", "tensorflow", "torch"}
DATA_LIBRARIES = {"pandas", "pyarrow"}

# Measured 0.5 to 2 percent. It is a share, and not seconds, because machines differ and may be under load.
PLUGIN_LIMIT_SHARE_OF_MLFLOW = 0.1
TRIES = 3

PROBE = """
import importlib, importlib.metadata, json, sys, time
all_entry_points = importlib.metadata.entry_points

def other_entry_points(**selected):  # else `import mlflow` has loaded the plugin modules before the clock starts
    return importlib.metadata.EntryPoints(
        entry for entry in all_entry_points(**selected) if not entry.value.startswith("mlflow_ipfs")
    )

importlib.metadata.entry_points = other_entry_points
before_names, names = json.loads(sys.argv[1])

def import_seconds(names):
    started = time.perf_counter()
    for name in names:
        importlib.import_module(name)
    return time.perf_counter() - started

before_seconds = import_seconds(before_names)
before = set(sys.modules)
seconds = import_seconds(names)
print(json.dumps([before_seconds, seconds, sorted(set(sys.modules) - before)]))
"""


@dataclass(frozen=True)
class ImportCost:
    """What imports before it took, what it took, and the modules that it added."""

    before_seconds: float
    seconds: float
    modules: set[str]

    @property
    def share(self) -> float:
        """Time as a share of what the imports before it took."""
        return self.seconds / self.before_seconds

    @property
    def packages(self) -> set[str]:
        return {module.partition(".")[0] for module in self.modules}


def measure_import(names: list[str], *, after: list[str], directory: Path) -> ImportCost:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([after, names])],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before_seconds, seconds, modules = json.loads(done.stdout)
    return ImportCost(before_seconds, seconds, set(modules))


def find_plugin_modules() -> list[str]:
    entries = importlib.metadata.distribution("mlflow-ipfs").entry_points
    return sorted({entry.module for entry in entries if entry.group.startswith("mlflow.")})


@pytest.fixture(scope="module")
def plugins_after_mlflow(tmp_path_factory: pytest.TempPathFactory) -> ImportCost:
    """Return the cost of importing all plugin modules, the best of a few tries."""
    directory = tmp_path_factory.mktemp("plugins")
    costs: list[ImportCost] = []
    while len(costs) < TRIES and all(cost.share > PLUGIN_LIMIT_SHARE_OF_MLFLOW for cost in costs):
        costs.append(measure_import(find_plugin_modules(), after=["mlflow"], directory=directory))
    assert list(directory.iterdir()) == [], "an import left something behind"
    return min(costs, key=lambda cost: cost.share)


def test_a_plugin_module_brings_in_no_framework_and_no_data_library(plugins_after_mlflow: ImportCost) -> None:
    assert plugins_after_mlflow.packages & (FRAMEWORKS | DATA_LIBRARIES | {"click"}) == set()


def test_a_plugin_module_does_not_load_mlflows_sql_stores(plugins_after_mlflow: ImportCost) -> None:
    loaded = {module for module in plugins_after_mlflow.modules if module.endswith(".sqlalchemy_store")}
    assert loaded == set(), "only the builder functions may load them, when a store is opened"


def test_all_plugin_modules_together_import_fast(plugins_after_mlflow: ImportCost) -> None:
    assert plugins_after_mlflow.share < PLUGIN_LIMIT_SHARE_OF_MLFLOW


def test_importing_the_package_and_using_its_names_needs_the_standard_library_only(tmp_path: Path) -> None:
    cost = measure_import(["mlflow_ipfs", "mlflow_ipfs.config", "mlflow_ipfs.opening"], after=[], directory=tmp_path)
    assert cost.packages - set(sys.stdlib_module_names) == {"mlflow_ipfs"}


def test_the_command_line_starts_without_mlflow(tmp_path: Path) -> None:
    cost = measure_import(["mlflow_ipfs.cli"], after=[], directory=tmp_path)
    assert cost.packages & ({"mlflow"} | FRAMEWORKS | DATA_LIBRARIES) == set()
