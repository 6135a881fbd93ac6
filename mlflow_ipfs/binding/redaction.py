"""Removal of secrets from text that MLflow's clients, log files or terminals show.

Every message, log line and tag of this package that may contain a URI of another system passes through ``hide_secrets``.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import URL

HIDDEN: Final = "***"

_DATABASES: Final = r"(?:postgres|mysql|mariadb|mssql|oracle)"
_RULES: Final = (
    # SQLAlchemy takes everything up to the "@" before the host for the password, even "/" and "?".
    (
        re.compile(rf"(?P<kept>[\w+.-]*{_DATABASES}[\w+.-]*://[^\s:/@]*:)[^\s@]+(?=@)", re.IGNORECASE),
        rf"\g<kept>{HIDDEN}",
    ),
    (re.compile(r"(?P<kept>\b[a-z][\w+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE), rf"\g<kept>{HIDDEN}"),
    # A user without a password is an access token there.
    (re.compile(r"(?P<kept>\b(?:https?|git|git\+https)://)[^\s:/@?#]+(?=@)", re.IGNORECASE), rf"\g<kept>{HIDDEN}"),
    # Parameters of libpq, and of signed URLs of S3, Google Cloud Storage, Azure and others.
    (
        re.compile(
            r"(?P<kept>(?:^|[\s?&;'\"])(?:[\w-]*(?:password|passwd|secret|signature|credential|token)|pwd|sig|api_?key)=)"
            r"[^\s&;'\"#]+",
            re.IGNORECASE,
        ),
        rf"\g<kept>{HIDDEN}",
    ),
)


def hide_secrets(text: str) -> str:
    """Return text with passwords, tokens and signatures of the URIs in it replaced by ``***``."""
    if "://" not in text and "=" not in text:
        return text
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


class SecretsFilter(logging.Filter):
    """A filter of log records that hides secrets in their messages and lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message if it has secrets."""
        message = record.getMessage()
        if (shown := hide_secrets(message)) != message:
            record.msg, record.args = shown, None
        return True


def protect_mlflow_logs() -> None:
    """Hide the secrets of URIs in MLflow's own log lines.

    For example, `mlflow server` logs a backend store URI that its job runner does not support, password included.
    """
    for handler in logging.getLogger("mlflow").handlers:
        if not any(isinstance(one, SecretsFilter) for one in handler.filters):
            handler.addFilter(SecretsFilter())


def show_url(url: URL) -> str:
    """Return the URL of a database without its secrets: the password, and parameters that are secret."""
    return hide_secrets(url.render_as_string(hide_password=True))
