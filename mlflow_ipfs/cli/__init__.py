"""The ``mlflow-ipfs`` command, which reads, verifies, pins and maintains the content of a store.

Each command is a thin layer over the packages ``content``, ``binding`` and ``backup``. Other packages add commands
through the entry-point group ``mlflow_ipfs.commands`` (see ``application.py``).
"""

from __future__ import annotations

import click

import mlflow_ipfs
from mlflow_ipfs.cli.add import add
from mlflow_ipfs.cli.adopt import adopt
from mlflow_ipfs.cli.application import Application
from mlflow_ipfs.cli.backup import backup
from mlflow_ipfs.cli.block import block
from mlflow_ipfs.cli.car import car
from mlflow_ipfs.cli.cat import cat
from mlflow_ipfs.cli.cid import cid
from mlflow_ipfs.cli.completion import completion
from mlflow_ipfs.cli.dag import dag
from mlflow_ipfs.cli.databases import databases
from mlflow_ipfs.cli.doctor import doctor
from mlflow_ipfs.cli.du import du
from mlflow_ipfs.cli.eject import eject
from mlflow_ipfs.cli.errors import PROGRAM
from mlflow_ipfs.cli.gc import gc
from mlflow_ipfs.cli.get import get
from mlflow_ipfs.cli.ls import ls
from mlflow_ipfs.cli.options import CliContext, shared_options
from mlflow_ipfs.cli.pin import pin
from mlflow_ipfs.cli.refs import refs
from mlflow_ipfs.cli.restore import restore
from mlflow_ipfs.cli.runlog import runlog
from mlflow_ipfs.cli.scrub import scrub
from mlflow_ipfs.cli.verify import verify

__all__ = ["main"]

EPILOG = """
CONTENT is a CID, CID/path, /ipfs/CID/path or ipfs://CID/path. The commands get, cat, ls, cid, verify, pin,
block, refs, dag and car export also accept mfs://ROOT/path, models:/NAME/VERSION, models:/NAME@ALIAS and runs:/RUN_ID/path.

With --json, each result is one JSON object on a line of standard output. An error is one JSON object on
standard error: {"error": {"type", "message", "exit_code"}}.

\b
Exit codes:
  0  success
  1  failure
  2  wrong command line or setting
  3  not found
  4  verification failed
  5  refused by a setting, or by file permissions
"""


@click.group(cls=Application, name=PROGRAM, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@shared_options
@click.version_option(mlflow_ipfs.__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Add, read, verify and pin content by its CID, and maintain the store that MLflow uses."""
    if context.obj is None:  # --store has not set it
        context.obj = CliContext(None)


for _command in (add, get, cat, ls, cid, verify, pin, gc, du, car, block, refs, dag, adopt, eject, backup, restore):
    main.add_command(_command)
for _command in (databases, scrub, runlog, doctor, completion):
    main.add_command(_command)
