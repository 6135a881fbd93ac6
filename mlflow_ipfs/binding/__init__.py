"""What ties MLflow to CIDs: locations, sources, freezing. Private MLflow imports stand in ``mlflow_compat`` only."""
