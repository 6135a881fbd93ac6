from __future__ import annotations

import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st

from mlflow_ipfs.binding.redaction import hide_secrets, show_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("ipfs+postgresql+psycopg2://me:p/w:?x@host:5/db", "ipfs+postgresql+psycopg2://me:***@host:5/db"),
        ("unsupported URI 'ipfs+mysql://me:pw@host/db' for", "unsupported URI 'ipfs+mysql://me:***@host/db' for"),
        ("s3://key:secret@bucket/a@b", "s3://key:***@bucket/a@b"),
        ("https://me:pw@host/a and ftp://b:c@d", "https://me:***@host/a and ftp://b:***@d"),
        ("https://ghp_x@host/a", "https://***@host/a"),
        ("postgresql:///db?user=me&password=pw&sslmode=x", "postgresql:///db?user=me&password=***&sslmode=x"),
        ("postgresql://h/db?sslpassword=pw", "postgresql://h/db?sslpassword=***"),
        ("https://b.s3/x?X-Amz-Signature=ab&X-Amz-Date=1", "https://b.s3/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("https://a.blob/x?sv=1&sig=ab%2B", "https://a.blob/x?sv=1&sig=***"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "models:/digits@champion",
        "http://host:5000/#/models/x@y",
        "http://host:5000/x@champion",
        "postgresql://me@host/db",
        "sqlite:////srv/a@b/mlflow.db",
        "mfs://mlflow/1/@bafy",
        "mlflow-artifacts://host:5000/1/x/@bafy",
        "the tokenizer=bert",
        "max_tokens=5",
        "",
    ],
)
def test_all_else_is_kept(text: str) -> None:
    assert hide_secrets(text) == text


@given(st.text(st.characters(exclude_characters="@:/", categories=("L", "N", "P")), min_size=8, max_size=12))
def test_no_password_of_a_database_is_shown(password: str) -> None:
    url = sqlalchemy.URL.create("postgresql", "me", password, "host", 5432, "db")
    whole = url.render_as_string(hide_password=False)
    assert (
        hide_secrets(f"cannot connect to {whole}: refused")
        == "cannot connect to postgresql://me:***@host:5432/db: refused"
    )
    assert show_url(url) == "postgresql://me:***@host:5432/db"


def test_a_password_in_the_query_of_a_url_is_hidden() -> None:
    url = sqlalchemy.make_url("postgresql:///db?user=me&password=geheim")
    assert show_url(url) == "postgresql:///db?password=***&user=me"
