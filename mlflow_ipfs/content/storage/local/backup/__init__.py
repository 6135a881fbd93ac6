"""Copies of a whole local store, and everything that a backup outside of the store needs to make and restore one."""

from __future__ import annotations

from mlflow_ipfs.content.storage.local.backup.files import copy_faults, make_real_folder, real_path, status_of
from mlflow_ipfs.content.storage.local.backup.snapshot import Alone, Companion
from mlflow_ipfs.content.storage.local.backup.store_copy import (
    CloneReport,
    clone_folder,
    copy_durably,
    install,
    remove_unnamed,
)
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, CloneWriter, refuse_used
from mlflow_ipfs.content.storage.local.index.layout import Layout, check_platform, is_store, make_lock_file, read_format

__all__ = [
    "INDEX",
    "Alone",
    "CloneReport",
    "CloneWriter",
    "Companion",
    "Layout",
    "check_platform",
    "clone_folder",
    "copy_durably",
    "copy_faults",
    "install",
    "is_store",
    "make_lock_file",
    "make_real_folder",
    "read_format",
    "real_path",
    "refuse_used",
    "remove_unnamed",
    "status_of",
]
