"""The private state of MLflow's autologging is where this package looks for it."""

from __future__ import annotations

import pytest
from mlflow.utils import autologging_utils
from mlflow.utils.autologging_utils.safety import _AutologgingSessionManager

from mlflow_ipfs.binding.mlflow_compat import autolog_options


@pytest.fixture(autouse=True)
def _options(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"keras": {"disable": False, "log_every_n_steps": 5}, "tensorflow": {"disable": True}}
    monkeypatch.setattr(autologging_utils, "AUTOLOGGING_INTEGRATIONS", options)


def test_outside_of_a_call_nothing_is_logged_automatically() -> None:
    assert autolog_options("keras", "tensorflow") == []


def test_in_a_call_the_integrations_that_are_on_count() -> None:
    with _AutologgingSessionManager.start_session("sklearn"):
        [options] = autolog_options("keras", "tensorflow", "pytorch")
    assert options["log_every_n_steps"] == 5


def test_a_session_that_failed_logs_nothing() -> None:
    with _AutologgingSessionManager.start_session("keras") as session:
        session.state = "failed"
        assert autolog_options("keras") == []
