"""The formats of a report, and how its files are written."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mlflow_ipfs.errors import SettingsError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from .data import ReportData

    Writer = Callable[[ReportData, Path], list[Path]]

# The writer of each format: it gets the data and an existing directory, and returns the files that it has written.
# A module is imported at the first use of its format, because it may need an optional library.
FORMATS: Final[dict[str, tuple[str, str]]] = {
    "html": ("html.writing", "write_html"),
    "svg": ("static.writing", "write_svg"),
    "png": ("static.writing", "write_png"),
    "json": ("json_format", "write_json"),
    "csv": ("csv_format", "write_csv"),
    "txt": ("text_format", "write_text"),
}
FORBIDDEN_NAME: Final = "reports"


def read_formats(text: str | Iterable[str]) -> list[str]:
    """Return the names of formats, each once, from a list or from a text with commas.

    Raises:
        SettingsError: a format does not exist, or none is named.
    """
    words = text.split(",") if isinstance(text, str) else list(text)
    names = list(dict.fromkeys(word.strip().lower() for word in words if word.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        msg = f"{', '.join(unknown) or 'no format'} cannot be written; the formats are {', '.join(FORMATS)}"
        raise SettingsError(msg)
    return names


def check_directory(directory: Path) -> None:
    """Raise if a report cannot be written to a directory because of its name.

    Raises:
        SettingsError: the directory is called ``reports``.
    """
    if directory.resolve().name == FORBIDDEN_NAME:
        msg = f"a report cannot be written to {directory}: Python would take it for the package `reports`; use another name"
        raise SettingsError(msg)


def export(data: ReportData, directory: str | os.PathLike[str], formats: str | Iterable[str]) -> list[Path]:
    """Write a report into a directory, which is created if it does not exist. Files of an earlier report are replaced.

    Args:
        data: the report.
        directory: the directory. It cannot have the name ``reports``: Python would take it for this package.
        formats: names of ``FORMATS``, as a list or as a text with commas.

    Returns:
        The files, in the order of the formats.

    Raises:
        SettingsError: a format or the directory cannot be used.
        OSError: a file cannot be written.
    """
    names = read_formats(formats)
    place = Path(directory)
    check_directory(place)
    place.mkdir(parents=True, exist_ok=True)
    return [file for name in names for file in _load_writer(name)(data, place)]


def _load_writer(name: str) -> Writer:
    module, function = FORMATS[name]
    writer: Writer = getattr(import_module(f"{__package__}.{module}"), function)
    return writer
