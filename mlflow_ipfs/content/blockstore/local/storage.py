"""A local store, opened."""

from __future__ import annotations

import atexit
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_ipfs.content.blockstore.local import layout as layouts
from mlflow_ipfs.content.blockstore.local import schema
from mlflow_ipfs.content.blockstore.local.blocks import LocalBlocks
from mlflow_ipfs.content.blockstore.local.collecting import collect_garbage
from mlflow_ipfs.content.blockstore.local.database import Database
from mlflow_ipfs.content.blockstore.local.disk import Disk
from mlflow_ipfs.content.blockstore.local.entry_table import LocalEntries
from mlflow_ipfs.content.blockstore.local.faults import database_faults, disk_faults
from mlflow_ipfs.content.blockstore.local.layout import Layout
from mlflow_ipfs.content.blockstore.local.locking import FileLock
from mlflow_ipfs.content.blockstore.local.object_check import ObjectChecker
from mlflow_ipfs.content.blockstore.local.parts import Parts
from mlflow_ipfs.content.blockstore.local.pin_table import LocalPins, LocalRefs
from mlflow_ipfs.content.blockstore.local.publication import LocalPublication
from mlflow_ipfs.content.blockstore.local.reserve import make_reserve
from mlflow_ipfs.content.blockstore.local.sessions import Session, remove_dead_sessions
from mlflow_ipfs.content.blockstore.local.views import FileLinker
from mlflow_ipfs.errors import ImmutableError, NotFoundError, StoreFormatError
