"""The run log: metrics go to memory, then to a spool on disk, then to MLflow, and training never waits for MLflow.

``RunLog`` is the only way in which this project's code sends metrics. See ``run_log.py``.
"""
