"""The binding of MLflow to CIDs: locations, sources and freezing. Only ``mlflow_compat`` imports private MLflow code."""
