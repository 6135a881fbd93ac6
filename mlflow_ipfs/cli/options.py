"""What the commands share: where they work, how content is named, options that mean the same everywhere."""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any, Final

import click

from mlflow_ipfs.binding.locations import IpfsPath
from mlflow_ipfs.binding.uris import ContentName, Located, MlflowUri, locate, parse_content_name
from mlflow_ipfs.cli.errors import CommandError, ExitCode
from mlflow_ipfs.config import PREFIX, Settings, load_settings, read_store
from mlflow_ipfs.content.system.access import translate_access_errors
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError, NotFoundError, SettingsError
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    from mlflow_ipfs.content.store import ContentStore

    Command = TypeVar("Command", bound=Callable[..., Any])


class CliContext:
    """The settings and the store that the command line names: ``ctx.obj`` of every command.

    Args:
        store: value of ``--store``; None: as the settings say.
    """

    def __init__(self, store: str | None) -> None:
        self._store = store

    @property
    def store_option(self) -> list[str]:
        """What names the same store on another command line: ``--store`` if it was given."""
        return [] if self._store is None else ["--store", self._store]

    @functools.cached_property
    def _loaded(self) -> tuple[Settings, dict[str, str]]:
        if self._store is None:
            return load_settings()
        return load_settings(os.environ | {f"{PREFIX}STORE": f"local:{_read_directory(self._store)}"})

    @property
    def settings(self) -> Settings:
        """The settings in force.

        Raises:
            SettingsError: one has no usable value.
        """
        return self._loaded[0]

    @property
    def places(self) -> dict[str, str]:
        """Where each setting that has not its default comes from, by its name."""
        places = self._loaded[1]
        return places if self._store is None else places | {"store": "--store"}

    def open_store(self, settings: Settings | None = None, *, create: bool = False) -> ContentStore:
        """Open the store; the caller closes it.

        Args:
            settings: others than those in force.
            create: make the store if there is none.

        Raises:
            NotFoundError: there is none, and ``create`` is false.
        """
        settings = settings or self.settings
        if not create and not has_store(settings):
            advice = "; `mlflow-ipfs add` makes one, --store names another"
            if settings.store.is_file():
                advice = ": that is a file, and a store is a directory; --store names another"
            msg = f"there is no store at {settings.store}{advice}"
            raise NotFoundError(msg)
        return open_store(settings, create=create)


def _read_directory(store: str) -> Path:
    """The directory that ``--store`` names: as the setting does, or by a path that may be relative here."""
    is_path = store and "://" not in store and not store.startswith(("local:", "kubo:"))
    try:
        return read_store(f"local:{store}" if is_path else store)
    except (SettingsError, RuntimeError) as error:
        msg = f"--store: {store!r} can't be used: {error}"
        raise SettingsError(msg) from error


def has_store(settings: Settings) -> bool:
    """Whether anything lies where the store should be.

    Raises:
        PolicyError: this user may not look there.
    """
    with translate_access_errors(settings.store):
        return settings.store.is_dir() and any(settings.store.iterdir())


PACKAGE: Final = "mlflow_ipfs"  # its logger
_pass_cli_context = click.make_pass_decorator(CliContext)
_JSON: Final = f"{__name__}.json"  # in ``ctx.meta``, which a command shares with the groups above it


def pass_cli_context(command: Command) -> Command:
    """Give the command its ``CliContext``, as ``--store`` before or after its name says, and ``--debug``."""
    return store_option(debug_option(_pass_cli_context(command)))  # type: ignore[return-value] # click changes the signature


def store_option(command: Command) -> Command:
    """``--store``."""

    def use(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.obj = CliContext(value)

    return click.option(
        "--store",
        metavar="DIRECTORY",
        expose_value=False,
        callback=use,
        help="The store to work on, instead of MLFLOW_IPFS_STORE.",
    )(command)


def debug_option(command: Command) -> Command:
    """Add ``--debug``, which shows for this run what the package logs at debug level."""

    def show(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
        logger = logging.getLogger(PACKAGE)
        if value and logger.level != logging.DEBUG:
            context.find_root().call_on_close(functools.partial(logger.setLevel, logger.level))
            logger.setLevel(logging.DEBUG)

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=show,
        help="Say on stderr why files are trusted, hashed, healed, linked or copied.",
    )(command)


class ContentType(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """``CID[/path]`` in all its spellings; with ``anywhere`` also ``mfs://``, ``models:/`` and ``runs:/``."""

    name = "content"

    def __init__(self, *, anywhere: bool = False) -> None:
        self._anywhere = anywhere

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ContentName:  # noqa: ANN401 - click's
        """Read the argument; malformed is an error of usage."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # converted already
        try:
            name = parse_content_name(value)
        except (InvalidCIDError, InvalidPathError) as error:
            raise CommandError(str(error), ExitCode.USAGE, type(error).__name__) from error
        if not self._anywhere and not isinstance(name, IpfsPath):
            msg = f"{value!r} may stand for something else by now; name the CID, as `mlflow-ipfs pin ls` shows it"
            self.fail(msg, param, ctx)
        return name


CONTENT = ContentType()
ANY_CONTENT = ContentType(anywhere=True)


def find(store: ContentStore, name: ContentName, tracking_uri: str | None) -> Located:
    """``locate``, for the command line: what MLflow can't read is an error of usage."""
    try:
        return locate(store, name, tracking_uri=tracking_uri)
    except InvalidPathError as error:
        raise CommandError(str(error), ExitCode.USAGE, type(error).__name__) from error


def text_of(name: ContentName) -> str:
    """A content name as it is shown."""
    if isinstance(name, MlflowUri):
        return name.text
    if isinstance(name, IpfsPath):
        return f"{name.cid}/{name.path}" if name.path else str(name.cid)
    return str(name)


def json_option(command: Command) -> Command:
    """``--json``: the command's ``as_json``, which is true as well if the option stands before the command's name."""
    return _json_option("Print JSON, one object a line.", expose_value=True)(command)


def json_errors_option(command: Command) -> Command:
    """``--json`` for a command that has nothing else to print as JSON."""
    return _json_option("Print an error, if there is one, as JSON.", expose_value=False)(command)


def shared_options(group: Command) -> Command:
    """``--store``, ``--debug`` and ``--json`` of a group: they hold for the command that follows."""
    return store_option(debug_option(_json_option("Print JSON, one object a line.", expose_value=False)(group)))


def _json_option(text: str, *, expose_value: bool) -> Callable[[Command], Command]:
    def look_above(context: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click's
        context.meta[_JSON] = value or context.meta.get(_JSON, False)
        return bool(context.meta[_JSON])

    return click.option("--json", "as_json", is_flag=True, expose_value=expose_value, callback=look_above, help=text)


def tracking_option(command: Command) -> Command:
    """``--tracking-uri``."""
    return click.option(
        "--tracking-uri", metavar="URI", help="The MLflow to ask about models:/ and runs:/  [default: MLflow's own]"
    )(command)
