"""Parts that the commands share: the context, names of content on the command line, and common options."""

from __future__ import annotations

import functools
import logging
import os
import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from mlflow_ipfs.binding.locations import IpfsPath
from mlflow_ipfs.binding.uris import ContentName, Located, MlflowUri, locate, parse_content_name
from mlflow_ipfs.cli.errors import PROGRAM, CommandError, ExitCode
from mlflow_ipfs.cli.terminal import format_count, print_notice, printable
from mlflow_ipfs.config import PREFIX, Settings, load_settings, read_store
from mlflow_ipfs.content.storage.local.backup import Layout, is_store
from mlflow_ipfs.content.system.access import translate_access_errors
from mlflow_ipfs.errors import InvalidCIDError, InvalidPathError, NotFoundError, SettingsError
from mlflow_ipfs.opening import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    from mlflow_ipfs.content.store import ContentStore

    Command = TypeVar("Command", bound=Callable[..., Any])


_CREATE_OR_NAME: Final = "; create it with `mlflow-ipfs add`, or name another store with --store"
_MAX_MODELS_NAMED: Final = 5
PACKAGE: Final = "mlflow_ipfs"  # name of its logger
_JSON: Final = f"{__name__}.json"  # key in ``ctx.meta``, which a command shares with its groups


class CliContext:
    """The settings and the store of a command line: ``ctx.obj`` of every command.

    Args:
        store: value of ``--store``; None: use the store of the settings.
    """

    def __init__(self, store: str | None) -> None:
        self._store = store

    @property
    def store_option(self) -> list[str]:
        """Return the arguments that select the same store on another command line: ``--store``, if it was given."""
        return [] if self._store is None else ["--store", self._store]

    @functools.cached_property
    def _loaded(self) -> tuple[Settings, dict[str, str]]:
        if self._store is None:
            return load_settings()
        return load_settings(os.environ | {f"{PREFIX}STORE": f"local:{_read_directory(self._store)}"})

    @property
    def settings(self) -> Settings:
        """Return the settings in force.

        Raises:
            SettingsError: a setting has an unusable value.
        """
        return self._loaded[0]

    @property
    def setting_sources(self) -> dict[str, str]:
        """Return the source of each setting that does not have its default value, by the setting's name."""
        sources = self._loaded[1]
        return sources if self._store is None else sources | {"store": "--store"}

    def open_store(
        self, settings: Settings | None = None, *, create: bool = False, if_missing: str = _CREATE_OR_NAME
    ) -> ContentStore:
        """Open the store; the caller closes it.

        Args:
            settings: used instead of the settings in force.
            create: create the store if it does not exist.
            if_missing: what to do if it does not exist, for the message.

        Raises:
            NotFoundError: the store does not exist, and ``create`` is false.
        """
        settings = settings or self.settings
        _check_is_store(settings.store, create=create, if_missing=if_missing)
        is_new = create and not has_store(settings)
        store = open_store(settings, create=create)
        if is_new and not _wants_json():
            print_notice(f"created the store {settings.store}")
        return store


def _wants_json() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_JSON, False))


def _check_is_store(directory: Path, *, create: bool, if_missing: str) -> None:
    """Raise if a directory is not a store. With ``create``, a directory may be new, empty or a store that is half made.

    Raises:
        NotFoundError: the directory is not a store.
        PolicyError: this user has no permission to read it.
    """
    layout = Layout(directory)
    with translate_access_errors(directory):
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    is_creatable = create and not directory.is_file() and (not names or layout.write_lock.name in names)
    if layout.format_file.name in names or is_creatable:
        return
    if directory.is_file():
        msg = f"{directory} is a file, not a store; name the directory of a store with --store"
    elif not names:
        msg = f"no store found at {directory}{if_missing}"
    elif is_store(Layout(directory / "store")):  # a backup keeps its copy of the store there
        msg = f"no store found at {directory}, but in it; name {directory / 'store'} with --store"
    elif layout.database.name in names:
        msg = f"the store {directory} has lost its {layout.format_file.name}; run `mlflow-ipfs doctor --rebuild`"
    else:
        msg = f"no store found at {directory}, which contains other files; name the directory of a store with --store"
    raise NotFoundError(msg)


def _read_directory(store: str) -> Path:
    """Return the directory that ``--store`` names, in the form of the setting or as a path, which may be relative."""
    is_path = store and "://" not in store and not store.startswith(("local:", "kubo:"))
    try:
        return read_store(f"local:{store}" if is_path else store)
    except (SettingsError, RuntimeError) as error:
        msg = f"--store: {store!r} cannot be used: {error}"
        raise SettingsError(msg) from error


def has_store(settings: Settings) -> bool:
    """Return whether the directory of the store exists and is not empty.

    Raises:
        PolicyError: this user has no permission to read it.
    """
    with translate_access_errors(settings.store):
        return settings.store.is_dir() and any(settings.store.iterdir())


def pass_cli_context(command: Command) -> Command:
    """Pass the command its ``CliContext``, and add ``--store`` and ``--debug``."""
    return store_option(debug_option(click.make_pass_decorator(CliContext)(command)))  # type: ignore[return-value] # click changes the signature


def store_option(command: Command) -> Command:
    """Add ``--store``."""

    def use(context: click.Context, _: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.obj = CliContext(value)

    return click.option(
        "--store",
        metavar="DIRECTORY",
        expose_value=False,
        callback=use,
        help="The store to use, instead of MLFLOW_IPFS_STORE.",
    )(command)


def debug_option(command: Command) -> Command:
    """Add ``--debug``, which shows the debug messages of the package during this run."""

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
        help="Log to stderr why files are trusted, hashed, healed, linked or copied.",
    )(command)


class ContentType(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.5
    """Type of an argument that names content: ``CID[/path]``, ``mfs://``, ``models:/`` or ``runs:/``."""

    name = "content"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ContentName:  # noqa: ANN401, ARG002 - click's
        """Parse the argument; raise a usage error if it is malformed."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # already converted
        try:
            return parse_content_name(value)
        except (InvalidCIDError, InvalidPathError) as error:
            raise CommandError(_path_advice(value) or str(error), ExitCode.USAGE, type(error).__name__) from error


def _path_advice(text: str) -> str:
    """Return advice if the text is a path on this machine, which does not name content; else ``""``."""
    if "://" in text or not (text.startswith((".", "~")) or ("\0" not in text and os.path.lexists(text))):
        return ""
    quoted = shlex.quote(text)
    return (
        f"{text!r} is a path on this machine, and this command takes the name of content, such as a CID; "
        f"`mlflow-ipfs add {quoted}` stores the path and prints its CID"
    )


ANY_CONTENT = ContentType()


def find(store: ContentStore, name: ContentName, tracking_uri: str | None) -> Located:
    """Return the location of content, whose root is in the store; raise a usage error if MLflow cannot parse the name."""
    try:
        found = locate(store, name, tracking_uri=tracking_uri)
    except InvalidPathError as error:
        raise CommandError(str(error), ExitCode.USAGE, type(error).__name__) from error
    if not found.store.has(found.cid):
        msg = (
            f"{found.cid} is not in this store{found.cid.hash_hint}; add the content (`mlflow-ipfs add` or `car import`), "
            "or name a store that has it with --store"
        )
        raise NotFoundError(msg)
    return found


def report_other_models(found: Located, command: str) -> None:
    """Print which logged models of a run are not part of the content that a command was given."""
    models = found.other_models
    if not models:
        return
    names = ", ".join(f"models:/{model.model_id} ({printable(model.name)})" for model in models[:_MAX_MODELS_NAMED])
    more = f" and {len(models) - _MAX_MODELS_NAMED} more" if len(models) > _MAX_MODELS_NAMED else ""
    count = format_count(len(models), "logged model")
    print_notice(
        f"this is the run's own artifacts; MLflow keeps its {count} elsewhere: {names}{more}. "
        f"For one of them, use `{PROGRAM} {command} models:/{models[0].model_id}`"
    )


def text_of(name: ContentName) -> str:
    """Return a content name as text."""
    if isinstance(name, MlflowUri):
        return name.text
    if isinstance(name, IpfsPath):
        return f"{name.cid}/{name.path}" if name.path else str(name.cid)
    return str(name)


def json_option(command: Command) -> Command:
    """Add ``--json``, the command's argument ``as_json``. The option may precede the command's name."""
    return _json_option("Print JSON, one object per line.", expose_value=True)(command)


def json_errors_option(command: Command) -> Command:
    """Add ``--json`` for a command that prints only errors as JSON."""
    return _json_option("Print errors as JSON.", expose_value=False)(command)


def shared_options(group: Command) -> Command:
    """Add ``--store``, ``--debug`` and ``--json`` to a group; they apply to the command that follows."""
    return store_option(debug_option(_json_option("Print JSON, one object per line.", expose_value=False)(group)))


def _json_option(text: str, *, expose_value: bool) -> Callable[[Command], Command]:
    def inherit(context: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click's
        context.meta[_JSON] = value or context.meta.get(_JSON, False)
        return bool(context.meta[_JSON])

    return click.option("--json", "as_json", is_flag=True, expose_value=expose_value, callback=inherit, help=text)


def tracking_option(command: Command) -> Command:
    """Add ``--tracking-uri``."""
    return click.option(
        "--tracking-uri",
        metavar="URI",
        help="MLflow tracking URI for models:/ and runs:/  [default: MLflow's own setting]",
    )(command)
