"""Repair of a local store: scrub, affected names, index backups, rebuild."""
