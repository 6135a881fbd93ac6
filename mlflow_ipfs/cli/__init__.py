"""``mlflow-ipfs``: content in and out of the store by hand, and what is wrong if something is.

Commands are a few lines each; what they do is in ``content`` and ``binding``. Other packages add
commands by the entry-point group ``mlflow_ipfs.commands`` (see ``application.py``).
"""

from __future__ import annotations

import click

import mlflow_ipfs
from mlflow_ipfs.cli.add import add
from mlflow_ipfs.cli.application import PROGRAM, Application
from mlflow_ipfs.cli.backup import backup
from mlflow_ipfs.cli.car import car
from mlflow_ipfs.cli.cat import cat
from mlflow_ipfs.cli.databases import databases
from mlflow_ipfs.cli.doctor import doctor
from mlflow_ipfs.cli.du import du
from mlflow_ipfs.cli.gc import gc
from mlflow_ipfs.cli.get import get
from mlflow_ipfs.cli.ls import ls
from mlflow_ipfs.cli.options import CliContext, shared_options
from mlflow_ipfs.cli.pin import pin
from mlflow_ipfs.cli.restore import restore
from mlflow_ipfs.cli.scrub import scrub
from mlflow_ipfs.cli.verify import verify

__all__ = ["main"]

EPILOG = """
CONTENT is a CID, CID/path, /ipfs/CID/path or ipfs://CID/path. get, cat, ls, verify, pin add and
car export also take mfs://ROOT/path, models:/NAME/VERSION, models:/NAME@ALIAS and runs:/RUN_ID/path.

With --json, stdout has one JSON object a line, one for each result; an error is one JSON object on
stderr: {"error": {"type", "message", "exit_code"}}.

\b
Exit codes:
  0  done
  1  failed
  2  the command line or a setting is wrong
  3  not found
  4  does not verify
  5  refused by a rule or a setting
"""


@click.group(cls=Application, name=PROGRAM, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@shared_options
@click.version_option(mlflow_ipfs.__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Content by CID: what MLflow keeps in IPFS, added, read, verified and pinned by hand."""
    if context.obj is None:  # else --store made one
        context.obj = CliContext(None)


for _command in (add, get, cat, ls, verify, pin, gc, du, car, backup, restore, databases, scrub, doctor):
    main.add_command(_command)
