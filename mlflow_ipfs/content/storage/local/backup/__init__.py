"""Copies of a whole local store, and the functions that ``mlflow_ipfs/backup`` needs to make and restore them."""

from __future__ import annotations

from mlflow_ipfs.content.storage.local.backup.files import (
    make_real_directory,
    real_path,
    status_of,
    translate_copy_errors,
)
from mlflow_ipfs.content.storage.local.backup.snapshot import NullParticipant, Participant
from mlflow_ipfs.content.storage.local.backup.store_copy import (
    BackupReport,
    copy_backup,
    copy_durably,
    install,
    remove_unnamed,
)
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter, check_not_in_use
from mlflow_ipfs.content.storage.local.index.layout import Layout, check_platform, is_store, make_lock_file, read_format

__all__ = [
    "INDEX",
    "BackupReport",
    "BackupWriter",
    "Layout",
    "NullParticipant",
    "Participant",
    "check_not_in_use",
    "check_platform",
    "copy_backup",
    "copy_durably",
    "install",
    "is_store",
    "make_lock_file",
    "make_real_directory",
    "read_format",
    "real_path",
    "remove_unnamed",
    "status_of",
    "translate_copy_errors",
]
