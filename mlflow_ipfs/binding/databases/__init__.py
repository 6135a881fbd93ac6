"""MLflow's databases that use a store: where each was seen, and copies of them."""
