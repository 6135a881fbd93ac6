"""Dashboards: functions from the data of a report to figures."""
