"""What a metric's key says: the model, the stage of the training, and the quantity."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mlflow_ipfs.training import metric_names as names

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["loss", "quality", "other"]

_STAGES: Final = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "eval": "validation",
    "test": "test",
}
# XGBoost and LightGBM number their evaluation sets: ``validation_0-logloss``, ``valid_1-l2``.
_STAGE: Final = rf"(?P<stage>{'|'.join(_STAGES)})"
_KEYS: Final = (
    re.compile(
        rf"(?:(?P<model>.+)/)?(?P<quantity>(?!(?:{'|'.join(_STAGES)})/)[^/]+)/{_STAGE}(?:_(?P<number>\d+))?(?P<per>_step|_epoch)?",
        re.IGNORECASE,
    ),
    re.compile(
        rf"(?:(?P<model>.+)/)?{_STAGE}(?:_(?P<number>\d+)(?=[-/. ]))?[-_/. ](?P<quantity>[^/]+?)(?P<per>_step|_epoch)?",
        re.IGNORECASE,
    ),
    re.compile(r"(?:(?P<model>.*)/)?(?P<quantity>[^/]*?)(?P<per>(?<=[^/])_step|(?<=[^/])_epoch)?", re.DOTALL),
)
# With a stage at the end it is only a guess, ``samples_train``: it counts for losses and qualities, ``rmse_val``.
_LAST_STAGE: Final = re.compile(
    rf"(?:(?P<model>.+)/)?(?P<quantity>[^/]+?)[-_. ]{_STAGE}(?:_(?P<number>\d+))?(?P<per>_step|_epoch)?",
    re.IGNORECASE,
)
_LOSSES: Final = re.compile(
    r"(^|[-_ ])([a-z]*loss|nll|perplexity|ppl|[a-z]*entropy|b?ce|kl|kld|kldiv|hinge|huber|[a-z]*error|merr|"
    r"mse|msle|mae|mape|smape|rmse|rmsle|wer|cer)\d*($|[-_ ])|^l[12]$",
    re.IGNORECASE,
)
_QUALITIES: Final = re.compile(
    r"(^|[-_ @])([a-z]*accuracy|acc\d*|top\d+|f1|precision|recall|auc|auroc|m?iou|dice|jaccard|r2|explained_variance|score"
    r"|bleu\d*|rouge\w*|map(\d+|@\d+)?|ndcg|psnr|ssim|reward|rew)($|[-_ @])",
    re.IGNORECASE,
)
# scikit-learn negates losses, so that higher is better. A negative log-likelihood is a loss all the same.
_NEGATED: Final = re.compile(r"neg_(?!log_?likelihood)", re.IGNORECASE)
STAGES: Final = ("training", "validation", "test")
"""The stages in the order in which they are shown."""

_TABLE: Final = frozenset(entry.key for entry in names.METRIC_NAMES)


@dataclass(frozen=True, slots=True)
class Role:
    """What a key says.

    Attributes:
        model: what is before the stage or the quantity, for example a model's id; ``""`` without it.
        stage: ``training``, ``validation``, ``test`` or ``""``.
        quantity: what was measured, for example ``loss``.
        per: ``step`` or ``epoch`` if the key ends with it, as Lightning's do; else ``""``.
        number: the number of the evaluation set in the key, as XGBoost's have; else ``""``.
    """

    model: str
    stage: str
    quantity: str
    per: str = ""
    number: str = ""

    @property
    def kind(self) -> Kind:
        """Whether lower is better (a loss), or higher (a quality)."""
        if _LOSSES.search(self.quantity):
            return "quality" if _NEGATED.match(self.quantity) else "loss"
        return "quality" if _QUALITIES.search(self.quantity) else "other"

    @property
    def legend(self) -> str:
        """The name of the curve in a chart of its quantity."""
        name = f"{self.stage} {self.number}".strip() if self.stage else self.quantity
        return f"{name}, each {self.per}" if self.per else name


def parse_key(key: str) -> Role:
    """Return the role of a key: of ``train_loss``, ``loss/train``, ``loss_train`` and ``loss``, each below a model or not."""
    role = _read_role(next(match for pattern in _KEYS if (match := pattern.fullmatch(key))))
    if not role.stage and (match := _LAST_STAGE.fullmatch(key)):
        guess = _read_role(match)
        return role if guess.kind == "other" else guess
    return role


def _read_role(match: re.Match[str]) -> Role:
    found = match.groupdict()
    stage = _STAGES[found["stage"].lower()] if "stage" in found else ""
    per = (found["per"] or "").lower().removeprefix("_")
    return Role(found["model"] or "", stage, found["quantity"], per, found.get("number") or "")


def is_named_here(key: str) -> bool:
    """Return whether a key is one of ``metric_names``, below a model or not: it has a chart of its own."""
    last = key.rpartition("/")[2]
    return (
        last in _TABLE
        or f"/{names.INFERENCE}/" in f"/{key}"
        or f"/{names.LEARNING_RATE}/" in f"/{key}"
        or is_learning_rate(key)
    )


def is_learning_rate(key: str) -> bool:
    """Return whether a key is a learning rate. Lightning's own monitor has ``lr-Adam``."""
    last = key.rpartition("/")[2]
    return (
        last in {names.LEARNING_RATE, "lr"}
        or last.startswith(("lr-", f"{names.LEARNING_RATE}_"))
        or f"/{names.LEARNING_RATE}/" in f"/{key}"
    )


def group_keys(keys: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Return the keys of each model and quantity that are not in ``metric_names``, losses first, then qualities.

    The keys of a group are in the order of their stages; those without a stage are with the training, as in Keras.
    """
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for key in sorted(set(keys)):
        if not is_named_here(key):
            role = parse_key(key)
            groups[role.model, role.quantity].append(key)
    order = {"loss": 0, "quality": 1, "other": 2}

    def rank(group: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
        role = Role(group[0], "", group[1])
        return order[role.kind], -len(groups[group]), group

    def rank_stage(key: str) -> int:
        return STAGES.index(parse_key(key).stage or STAGES[0])

    return {group: sorted(groups[group], key=rank_stage) for group in sorted(groups, key=rank)}
