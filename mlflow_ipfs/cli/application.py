"""The ``mlflow-ipfs`` command as a whole: its errors, its signals, and the commands of other packages."""

from __future__ import annotations

import importlib.metadata
import io
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from mlflow_ipfs.cli.errors import CommandError, ExitCode, show_error
from mlflow_ipfs.errors import MlflowIpfsError

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM: Final = "mlflow-ipfs"
COMMAND_GROUP: Final = "mlflow_ipfs.commands"


class Application(click.Group):
    """A click group whose expected errors are one line on stderr and an exit code.

    Commands of other packages come from the entry-point group ``mlflow_ipfs.commands``: each
    entry is a ``click.Command``, and ``ctx.obj`` is a ``CliContext``. They are loaded when they are
    asked for; one that can't be loaded stands in nobody's way.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - click's signature
        """Run as the program of this process."""
        _show_our_warnings()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name in content may not fit the terminal's encoding
        if hasattr(signal, "SIGTERM"):
            signal.signal(signal.SIGTERM, _leave)
        return self.main(*args, **kwargs)

    def main(  # type: ignore[override] # click overloads it
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> NoReturn:
        """Parse the arguments, run the command, exit."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        try:
            code = super().main(arguments, prog_name or PROGRAM, **extra)
        except click.ClickException as error:
            show_error(error, as_json="--json" in arguments)
            sys.exit(error.exit_code)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command, and turn what may be expected to go wrong into a ``CommandError``."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(ExitCode.BROKEN_PIPE)
        except KeyboardInterrupt:
            msg = "interrupted"
            raise CommandError(msg, ExitCode.INTERRUPTED, "KeyboardInterrupt") from None
        except (MlflowIpfsError, OSError) as error:
            raise CommandError.of(error) from error
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Our commands in the order in which one meets them, then those of other packages."""
        return [*self.commands, *sorted(entry.name for entry in plugin_commands() if entry.name not in self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = [entry for entry in plugin_commands() if entry.name == cmd_name]
        return load_command(found[0]) if found else None


def plugin_commands() -> list[importlib.metadata.EntryPoint]:
    """The commands that installed packages add."""
    return list(importlib.metadata.entry_points(group=COMMAND_GROUP))


def load_command(entry: importlib.metadata.EntryPoint) -> click.Command:
    """Load the command of another package, or a command that says why that can't be done."""
    try:
        command = entry.load()
    except Exception as error:  # noqa: BLE001 - anything may go wrong at the import of other people's code
        return _broken(entry, f"{type(error).__name__}: {error}")
    if not isinstance(command, click.Command):
        return _broken(entry, f"{entry.value} is no click command")
    return command


def _broken(entry: importlib.metadata.EntryPoint, reason: str) -> click.Command:
    package = entry.dist.name if entry.dist else "another package"

    def complain() -> NoReturn:
        msg = f"the command {entry.name!r} of {package} can't be loaded: {reason}"
        raise CommandError(msg, ExitCode.FAILED, "PluginError")

    return click.Command(
        entry.name,
        callback=complain,
        short_help=f"(of {package}; can't be loaded, see `{PROGRAM} doctor`)",
        context_settings={"ignore_unknown_options": True},
        params=[click.Argument(["arguments"], nargs=-1, expose_value=False)],
    )


def _show_our_warnings() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    logging.getLogger("mlflow_ipfs").addHandler(handler)  # --debug lets it show more


def _leave(number: int, _frame: object) -> NoReturn:
    """SIGTERM ends the process as Ctrl-C does: with what is open cleaned up."""
    sys.exit(128 + number)


def _forget_stdout() -> None:
    """Nobody reads any more: what is still in buffers must not fail again at exit."""
    if sys.stdout is sys.__stdout__ and sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
