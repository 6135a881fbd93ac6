"""Application class of the ``mlflow-ipfs`` command: errors, signals and the commands of other packages."""

from __future__ import annotations

import importlib.metadata
import io
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from mlflow_ipfs.cli.errors import PROGRAM, CommandError, ExitCode, show_error
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND_GROUP: Final = "mlflow_ipfs.commands"


class Application(click.Group):
    """A click group that reports each expected error as one line on stderr and an exit code.

    Other packages add commands through the entry-point group ``mlflow_ipfs.commands``. Each entry point is a
    ``click.Command``, whose ``ctx.obj`` is a ``CliContext``. A command is loaded only when it is used. A command
    that cannot be loaded does not affect the other commands.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's signature
        """Run the command as the main program of this process."""
        _log_to_stderr()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # the terminal's encoding may lack characters of a name
        if hasattr(signal, "SIGTERM"):
            signal.signal(signal.SIGTERM, _exit_on_signal)
        return self.main(*args, **kwargs)

    def main(  # type: ignore[override] # click overloads it
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> NoReturn:
        """Parse the arguments, run the command and exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, prog_name or PROGRAM, **extra)
        except (click.Abort, KeyboardInterrupt):  # while the arguments were parsed, or a command was loaded
            error = _interrupted()
            show_error(error, as_json="--json" in arguments)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            show_error(error, as_json="--json" in arguments)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command, and raise its expected errors as ``CommandError``."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            ctx.exit(ExitCode.BROKEN_PIPE)
        except KeyboardInterrupt:
            raise _interrupted() from None
        except (MlflowIpfsError, OSError) as error:
            raise CommandError.of(error) from error
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the built-in commands in the order of their use, then those of other packages."""
        return [*self.commands, *sorted(entry.name for entry in plugin_commands() if entry.name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name; None if it does not exist."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = [entry for entry in plugin_commands() if entry.name == cmd_name]
        return load_command(found[0]) if found else None


def plugin_commands() -> list[importlib.metadata.EntryPoint]:
    """Return the entry points of the commands that installed packages add."""
    return list(importlib.metadata.entry_points(group=COMMAND_GROUP))


def load_command(entry: importlib.metadata.EntryPoint) -> click.Command:
    """Return the command of another package, or a command that reports why it cannot be loaded."""
    try:
        command = entry.load()
    except Exception as error:  # noqa: BLE001 - importing another package can raise anything
        return _make_failing_command(entry, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        return _make_failing_command(entry, f"{entry.value} is not a click command")
    return command


def _make_failing_command(entry: importlib.metadata.EntryPoint, reason: str) -> click.Command:
    """Return a command that accepts any arguments and reports why the real command cannot be loaded."""
    package = entry.dist.name if entry.dist else "another package"

    def fail() -> NoReturn:
        msg = f"the command {entry.name!r} of {package} cannot be loaded: {reason}; repair or uninstall {package}"
        raise CommandError(msg, ExitCode.FAILED, "PluginError")

    return click.Command(
        entry.name,
        callback=fail,
        short_help=f"(from {package}; cannot be loaded, see `{PROGRAM} doctor`)",
        context_settings={"ignore_unknown_options": True},
        params=[click.Argument(["arguments"], nargs=-1, expose_value=False)],
    )


def _interrupted() -> CommandError:
    return CommandError("interrupted", ExitCode.INTERRUPTED, "KeyboardInterrupt")


def _log_to_stderr() -> None:
    """Show the warnings of the package mlflow_ipfs on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    logging.getLogger("mlflow_ipfs").addHandler(handler)  # --debug lowers the level


def _exit_on_signal(number: int, _frame: object) -> NoReturn:
    """Exit through the cleanup handlers, as Ctrl-C does."""
    sys.exit(128 + number)


def _discard_stdout() -> None:
    """Redirect stdout to the null device, so that flushing its buffers at exit does not fail again."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
