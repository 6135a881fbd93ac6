"""State of MLflow's autologging, from private modules of MLflow. See ``mlflow_compat`` for the others."""

# ruff: noqa: PLC0415 - MLflow loads the plugin modules while it is being imported itself

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def options_in_use(*integrations: str) -> list[Mapping[str, Any]]:
    """Return the options of those integrations whose autolog runs the framework's call that is in progress.

    The list is empty outside of such a call, and in a call that autolog leaves out, for example because of ``exclusive``.
    """
    from mlflow.utils import autologging_utils
    from mlflow.utils.autologging_utils.safety import _AutologgingSessionManager

    session = _AutologgingSessionManager.active_session()
    if session is None or session.state == "failed":
        return []
    on = [name for name in integrations if not autologging_utils.autologging_is_disabled(name)]
    return [autologging_utils.AUTOLOGGING_INTEGRATIONS[name] for name in on]
