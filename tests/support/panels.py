"""Look-ups in dashboards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.figures import Dashboard


def find(dashboard: Dashboard, panel_id: str) -> Any:
    """Return a panel by its id."""
    return next(panel for panel in dashboard.panels if panel.panel_id == panel_id)


def titled(dashboard: Dashboard, title: str) -> Any:
    """Return a panel by its title."""
    return next(panel for panel in dashboard.panels if panel.title == title)
