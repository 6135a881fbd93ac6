"""Settings: the ``MLFLOW_IPFS_*`` environment variables, and the file ``config.toml``.

A setting is read from the environment, else from ``config.toml`` in the user's configuration directory, else it has
its default. In ``config.toml`` a name is in lower case and without the prefix: ``timeout_seconds = 30``.
Only this module reads settings from the environment; the other packages receive values.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tomllib
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mlflow_ipfs.content.files.chunker import Chunker, parse_chunker
from mlflow_ipfs.content.mfs import MfsPath
from mlflow_ipfs.content.profiles import UNIXFS_V1_2025, Profile, profile_named
from mlflow_ipfs.content.storage.base import DEFAULT_CACHE_BYTES
from mlflow_ipfs.errors import MlflowIpfsError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_logger = logging.getLogger(__name__)

PREFIX: Final = "MLFLOW_IPFS_"
APPLICATION: Final = "mlflow-ipfs"
DEFAULT_ROOT: Final = "mfs://mlflow"
DEFAULT_TIMEOUT_SECONDS: Final = 60.0
DEFAULT_RUNLOG_BYTES: Final = 1 << 30
MAX_TIMEOUT_SECONDS: Final = 7 * 24 * 3600.0  # SQLite's busy timeout is a 31-bit number of milliseconds

ViewMode = Literal["auto", "reflink", "hardlink", "copy"]

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i)?)?b?\s*", re.ASCII | re.IGNORECASE)


class FreezeMode(StrEnum):
    """Treatment of a model's bytes when a model version is created."""

    REQUIRED = "required"  # reject the version if its source cannot be read
    BEST_EFFORT = "best_effort"  # register such a version unfrozen, and tag it as unfrozen
    OFF = "off"  # MLflow's own behaviour


class VerifyMode(StrEnum):
    """Condition for hashing a file of the store again before its path is returned."""

    CHANGED = "changed"  # only if its inode, size or time differs from the index
    ALWAYS = "always"


def default_store_directory(environ: Mapping[str, str]) -> Path:
    """Return the path of ``store`` in this platform's directory for application data."""
    return _user_directory(environ, "XDG_DATA_HOME", ".local/share") / "store"


def default_runlog_directory(environ: Mapping[str, str]) -> Path:
    """Return the path of ``runlog`` in this platform's directory for application data."""
    return _user_directory(environ, "XDG_DATA_HOME", ".local/share") / "runlog"


def config_file(environ: Mapping[str, str]) -> Path:
    """Return the path of ``config.toml`` in this platform's directory for application configuration."""
    return _user_directory(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def _user_directory(environ: Mapping[str, str], xdg_variable: str, below_home: str) -> Path:
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / APPLICATION
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support" / APPLICATION
    named = environ.get(xdg_variable, "")
    # The XDG specification requires that relative paths are ignored.
    base = Path(named) if named.startswith("/") else _home() / below_home
    return base / APPLICATION


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # the user ID has no account, as in some containers
        return Path("/")


@dataclass(frozen=True, slots=True)
class Settings:
    """The user's settings, from ``Settings.from_environment()`` or constructed directly.

    Attributes:
        store: directory of the local store.
        root: mutable tree below which clients without a server write artifacts.
        profile: import profile, which determines the CIDs of files and directories.
        chunker: how files are cut into chunks; None for chunks of the profile's size.
        cache_bytes: maximum size of the store's cache.
        timeout_seconds: the longest wait for a lock of the store, or for a client's next bytes.
        verify: when a file is hashed again before its path is returned.
        view: how a private copy shares bytes with the store.
        freeze: how the model's bytes are treated when a model version is created.
        version_tags: whether frozen versions are tagged with their CID.
        import_allow: URI prefixes that a *server* may import models from.
        runlog: directory of the metrics that MLflow does not have yet.
        runlog_bytes: limit of the disk space of one run in that directory.
    """

    store: Path = field(default_factory=lambda: default_store_directory(os.environ))
    root: MfsPath = field(default_factory=lambda: MfsPath.parse(DEFAULT_ROOT))
    profile: Profile = UNIXFS_V1_2025
    chunker: Chunker | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    verify: VerifyMode = VerifyMode.CHANGED
    view: ViewMode = "auto"
    freeze: FreezeMode = FreezeMode.REQUIRED
    version_tags: bool = True
    import_allow: tuple[str, ...] = ()
    runlog: Path = field(default_factory=lambda: default_runlog_directory(os.environ))
    runlog_bytes: int = DEFAULT_RUNLOG_BYTES

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
        """Read the settings from the environment and the user's ``config.toml``.

        Args:
            environ: the environment; None for the environment of this process.
            file: a file to read instead of the user's ``config.toml``; it must exist.

        Raises:
            SettingsError: the value of a setting cannot be used. The message names the setting and its origin.
        """
        if environ is not None or file is not None:
            return load_settings(environ, file)[0]
        return _current()


_cached: tuple[tuple[object, ...], Settings] | None = None  # a server reads the settings several times a request


def _current() -> Settings:
    """Return the settings of this process. They are parsed again only if a variable or the file has changed."""
    global _cached  # noqa: PLW0603 - one tuple, replaced as a whole: threads see the old one or the new one
    get = os.environ.get
    variables = (*(get(variable) for variable in _VARIABLES), *(get(name) for name in _DIRECTORY_VARIABLES))
    try:
        status = config_file(os.environ).stat()
        stamp: object = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        stamp = None
    key = (variables, stamp)
    if _cached is None or _cached[0] != key:
        _cached = key, load_settings()[0]
    return _cached[1]


def load_settings(
    environ: Mapping[str, str] | None = None, file: Path | None = None
) -> tuple[Settings, dict[str, str]]:
    """Read the settings as ``Settings.from_environment`` does, and the origin of each that is set explicitly.

    Args:
        environ: the environment; None for the environment of this process.
        file: a file to read instead of the user's ``config.toml``; it must exist.

    Returns:
        The settings; and a mapping from the name of a setting to its origin. An origin is the environment variable, or
        the file and the name in it.

    Raises:
        SettingsError: the value of a setting cannot be used. The message names the setting and its origin.
    """
    environ = os.environ if environ is None else environ
    found = _from_file(file or config_file(environ), must_exist=file is not None)
    found |= _from_variables(environ)
    values = {name: setting.read() for name, setting in found.items()}
    values.setdefault("store", default_store_directory(environ))
    values.setdefault("runlog", default_runlog_directory(environ))
    return Settings(**values), {name: setting.origin for name, setting in found.items()}


@dataclass(frozen=True, slots=True)
class _RawSetting:
    """The unparsed value of a setting, and its origin."""

    name: str
    value: Any
    origin: str

    def read(self) -> Any:  # noqa: ANN401 - each setting has a type of its own
        try:
            return _READERS[self.name](self.value)
        except (MlflowIpfsError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            msg = f"{self.origin}: {self.value!r} cannot be used: {error}"
            raise SettingsError(msg) from error


def _from_variables(environ: Mapping[str, str]) -> dict[str, _RawSetting]:
    found = {}
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or not value:
            continue
        if name in _READERS:
            found[name] = _RawSetting(name, value, variable)
        else:
            # Not an error: a newer version of this package may share the environment.
            _logger.warning("%s is not a setting of this version, and is ignored; settings are %s", variable, _known())
    return found


def _from_file(file: Path, *, must_exist: bool) -> dict[str, _RawSetting]:
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError as error:
        if not must_exist:
            return {}
        msg = f"the settings file {str(file)!r} does not exist: name an existing file"
        raise SettingsError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read: {error}; correct the file or its permissions"
        raise SettingsError(msg) from error
    unknown = sorted(set(table) - set(_READERS))
    if unknown:
        msg = f"{file} has settings that this version does not know: {', '.join(unknown)}; settings are {_known()}"
        raise SettingsError(msg)
    return {name: _RawSetting(name, value, f"{file}: {name}") for name, value in table.items()}


def _known() -> str:
    return ", ".join(_READERS)


def read_store(value: str) -> Path:
    """Return the directory of a store, from ``local:<directory>`` or from a path that is absolute or starts with ``~``.

    Raises:
        SettingsError: the value names another kind of store, or is a path relative to the working directory.
        RuntimeError: the user that follows ``~`` does not exist.
    """
    scheme, colon, rest = value.partition(":")
    if scheme == "kubo" and colon:
        msg = "stores on a Kubo node are not supported yet; write local:<directory>"
        raise SettingsError(msg)
    if scheme == "local" and rest:
        return Path(rest).expanduser().absolute()
    directory = Path(value).expanduser()
    if directory.is_absolute():
        return directory
    if "://" in value or value in {"", "local:"}:
        msg = "a store is a directory on a disk of this machine; write local:<directory>"
    else:
        msg = f"a relative path depends on the working directory; write local:{directory.absolute()}"
    raise SettingsError(msg)


def _read_size(value: int | str) -> int:
    """Return a size in bytes, from a number of bytes or a number with a unit: ``10GB``, ``1.5 GiB``.

    ``kB``, ``MB``, ``GB`` and ``TB`` are powers of 1000; ``KiB``, ``MiB``, ``GiB`` and ``TiB`` are powers of 1024.

    Raises:
        SettingsError: the value is not a size.
    """
    found = _SIZE.fullmatch(str(value))
    if found is None or isinstance(value, bool):
        msg = "write a number of bytes, 0 or more, or a number with a unit such as 10GB or 10GiB"
        raise SettingsError(msg)
    number, prefix, binary = found.groups()
    return int(Decimal(number) * (1024 if binary else 1000) ** " kmgt".index((prefix or " ").lower()))


def _read_timeout(value: float | str) -> float:
    seconds = float(value)
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        msg = f"a time limit is a positive number of seconds, at most {MAX_TIMEOUT_SECONDS:.0f}"
        raise SettingsError(msg)
    return seconds


def _read_bool(value: bool | str) -> bool:  # noqa: FBT001 - the raw value from the file or the variable
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.lower() not in words:
        msg = "write true or false"
        raise SettingsError(msg)
    return words[value.lower()]


def _read_prefixes(value: str | list[str]) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip())


def _one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value.lower() not in words:
            msg = f"write one of {', '.join(words)}"
            raise SettingsError(msg)
        return value.lower()

    return read


def _member_of(enum: type[StrEnum]) -> Callable[[str], StrEnum]:
    read = _one_of(tuple(enum))
    return lambda value: enum(read(value))


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "store": read_store,
    "root": MfsPath.parse,
    "profile": profile_named,
    "chunker": parse_chunker,
    "cache_bytes": _read_size,
    "timeout_seconds": _read_timeout,
    "verify": _member_of(VerifyMode),
    "view": _one_of(("auto", "reflink", "hardlink", "copy")),
    "freeze": _member_of(FreezeMode),
    "version_tags": _read_bool,
    "import_allow": _read_prefixes,
    "runlog": read_store,
    "runlog_bytes": _read_size,
}
_VARIABLES: Final = tuple(f"{PREFIX}{name.upper()}" for name in _READERS)
_DIRECTORY_VARIABLES: Final = ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA")
