"""Copies of a whole local store, and everything that a backup outside of the store needs to make and restore one."""

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
from mlflow_ipfs.content.storage.local.backup.writer import INDEX, BackupWriter, refuse_used
from mlflow_ipfs.content.storage.local.index.layout import Layout, check_platform, is_store, make_lock_file, read_format

__all__ = [
    "INDEX",
    "BackupReport",
    "BackupWriter",
    "Layout",
    "NullParticipant",
    "Participant",
    "check_platform",
    "copy_backup",
    "copy_durably",
    "install",
    "is_store",
    "make_lock_file",
    "make_real_directory",
    "read_format",
    "real_path",
    "refuse_used",
    "remove_unnamed",
    "status_of",
    "translate_copy_errors",
]
