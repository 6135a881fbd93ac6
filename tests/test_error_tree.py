"""The errors are one tree, drawn where they are defined, and code that knows nothing of us can catch them."""

from __future__ import annotations

import builtins
import pickle
import re

import pytest

from mlflow_ipfs import errors
from mlflow_ipfs.errors import MlflowIpfsError

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, BaseException) and value is not MlflowIpfsError
]


def find_builtin_parent(kind: type[BaseException]) -> type[BaseException]:
    parents = [base for base in kind.__bases__ if base.__name__ in vars(builtins)]
    assert len(parents) == 1, f"{kind.__name__} has the built-in parents {parents}"
    return parents[0]


def read_drawing() -> dict[str, str]:
    drawn = re.findall(r"[├└]── (\w+)\((\w+)\)", errors.__doc__ or "")
    return dict(drawn)


def test_the_module_defines_errors_only() -> None:
    defined_here = {value for value in vars(errors).values() if getattr(value, "__module__", "") == errors.__name__}
    assert defined_here == {*KINDS, MlflowIpfsError}


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_base_and_a_telling_builtin_parent(kind: type[MlflowIpfsError]) -> None:
    assert kind.__bases__[0] is MlflowIpfsError
    assert find_builtin_parent(kind) not in {Exception, BaseException}


@pytest.mark.parametrize("kind", [*KINDS, MlflowIpfsError])
def test_every_error_keeps_its_message_through_pickle_and_str(kind: type[MlflowIpfsError]) -> None:
    error = kind("bafy… is not there; run `mlflow-ipfs doctor`")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error) == "bafy… is not there; run `mlflow-ipfs doctor`"


def test_the_drawing_shows_exactly_the_errors_and_their_builtin_parents() -> None:
    assert read_drawing() == {kind.__name__: find_builtin_parent(kind).__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", [*KINDS, MlflowIpfsError])
def test_every_error_says_what_it_means(kind: type[MlflowIpfsError]) -> None:
    assert kind.__dict__.get("__doc__")
