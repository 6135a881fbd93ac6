"""Backup and restore of MLflow's database and the store."""
