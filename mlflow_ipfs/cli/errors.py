"""Exit codes of the command, and its error messages: one line ``mlflow-ipfs: <message>`` or one JSON object."""

from __future__ import annotations

import json
import os
import sys
from enum import IntEnum
from typing import Final

import click

from mlflow_ipfs import errors
from mlflow_ipfs.binding.redaction import hide_secrets

PROGRAM: Final = "mlflow-ipfs"


class ExitCode(IntEnum):
    """Exit status of the command. Part of the interface: never renumber."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DOES_NOT_VERIFY = 4
    REFUSED = 5
    INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
    BROKEN_PIPE = 141  # 128 + SIGPIPE
    TERMINATED = 143  # 128 + SIGTERM


# Exists since click 8.2. Before, click prints the help of a group that has no command.
_NO_ARGUMENTS: Final = getattr(click.exceptions, "NoArgsIsHelpError", ())

_CODES: Final[tuple[tuple[type[Exception], ExitCode], ...]] = (
    (errors.SettingsError, ExitCode.USAGE),
    (errors.InvalidCIDError, ExitCode.USAGE),
    (errors.NotDirectoryError, ExitCode.NOT_FOUND),
    (errors.IntegrityError, ExitCode.DOES_NOT_VERIFY),
    (errors.PolicyError, ExitCode.REFUSED),
    (errors.ImmutableError, ExitCode.REFUSED),
    (FileNotFoundError, ExitCode.NOT_FOUND),  # the base class of NotFoundError
)


class CommandError(click.ClickException):
    """An expected error, with its message and exit code.

    Args:
        message: one line of text.
        code: the exit status.
        kind: name of the error's class, for ``--json``.
    """

    def __init__(self, message: str, code: ExitCode, kind: str) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc] # click declares a ClassVar, and reads it from the instance
        self.kind = kind

    @classmethod
    def of(cls, error: errors.MlflowIpfsError | OSError) -> CommandError:
        """Return the command's error for an exception."""
        code = next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
        return cls(_text_of(error), code, type(error).__name__)


def _text_of(error: errors.MlflowIpfsError | OSError) -> str:
    if isinstance(error, OSError) and not isinstance(error, errors.MlflowIpfsError) and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def show_error(error: click.ClickException, *, as_json: bool) -> None:
    """Print an error to stderr."""
    message = hide_secrets(error.format_message())
    if isinstance(error, _NO_ARGUMENTS) and not as_json:
        click.echo(message, file=sys.stderr)  # the help text, because the user gave no arguments
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message = f"{message.rstrip('.')} (see `{error.ctx.command_path} --help`)"
    kind = error.kind if isinstance(error, CommandError) else "UsageError"
    if as_json:
        line = json.dumps({"error": {"type": kind, "message": message, "exit_code": int(error.exit_code)}})
    else:
        line = f"mlflow-ipfs: {message}"
    click.echo(line, file=sys.stderr)
