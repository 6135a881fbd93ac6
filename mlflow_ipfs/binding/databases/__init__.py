"""MLflow's databases that use a store: the locations where they were seen, and copies of them."""
