"""TensorFlow as the backend: the tests of this directory once more, in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.clients import run_client
from support.not_run import not_run

HERE = Path(__file__).resolve().parent

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]

USE_EVERYTHING = """
    import keras, mlflow
    from keras_ipfs import InferenceMetrics, IPFSCallback
    from support.keras_models import X, Y, make_model
    model = make_model()
    callback = IPFSCallback(batch_size=16)
    model.fit(X, Y, epochs=2, batch_size=16, validation_data=(X, Y), verbose=0, callbacks=[callback])
    model.evaluate(X, Y, verbose=0, callbacks=[callback])
    model.predict(X, verbose=0, callbacks=[InferenceMetrics()])
    [run] = mlflow.search_runs(output_format="list")
    answer([keras.backend.backend(), run.info.status, "tensorflow" in sys.modules])
"""


@pytest.fixture(autouse=True)
def _needs_tensorflow() -> None:
    if importlib.util.find_spec("tensorflow") is None:
        not_run("TensorFlow is missing; `make test` installs it where it has wheels")


def test_the_tests_pass_on_tensorflow(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", HERE, "-m", pytestconfig.option.markexpr, f"--basetemp={tmp_path}/tests"],
        env=inherited | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"},
        cwd=HERE.parents[1], capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout)


def test_tensorflow_is_not_imported_on_torch(tmp_path: Path, database: Path) -> None:
    env = {
        "KERAS_BACKEND": "torch",
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
        "MLFLOW_IPFS_RUNLOG": str(tmp_path / "runlog"),
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    assert run_client(USE_EVERYTHING, directory=tmp_path, env=env) == ["torch", "FINISHED", False]
