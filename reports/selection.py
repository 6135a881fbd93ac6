"""Which runs a report is about: runs by id, an experiment, a search filter, or a registered model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mlflow_ipfs.errors import SettingsError

DEFAULT_MAX_RUNS: Final = 1000
_MODELS: Final = "models:/"


@dataclass(frozen=True, slots=True)
class ModelName:
    """A registered model, all of its versions or one.

    Attributes:
        name: the registered model.
        version: number of one version; None for all, or for the one with the alias.
        alias: alias of one version; ``latest`` is the one with the highest number.
    """

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Parse ``name``, ``name/3``, ``name@champion`` or ``name/latest``, with or without ``models:/``.

        Raises:
            SettingsError: the text has another form.
        """
        bare = text.removeprefix(_MODELS).strip("/")
        name, at, alias = bare.partition("@")
        if at and name and alias and "/" not in name:
            return cls(name, alias=alias)
        name, slash, version = bare.partition("/")
        if not at and name and not slash:
            return cls(name)
        if name and version == "latest":
            return cls(name, alias="latest")
        if name and version.isascii() and version.isdigit():
            return cls(name, int(version))
        msg = f"{text!r} does not name a registered model; write NAME, NAME/VERSION or NAME@ALIAS"
        raise SettingsError(msg)

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}, version {self.version}"
        return f"{self.name}@{self.alias}" if self.alias else self.name


@dataclass(frozen=True, slots=True)
class Selection:
    """The runs that a report is about. Exactly one of ``run_ids``, ``experiment`` and ``model``, or ``filter`` alone.

    Attributes:
        run_ids: ids of runs.
        experiment: name or id of an experiment; a name wins over an id.
        filter: MLflow's search filter, in the experiment or in all active experiments.
        model: a registered model: the runs that its versions were made from.
        max_runs: the newest runs are read, up to this number. The report names the number of the others.
    """

    run_ids: tuple[str, ...] = ()
    experiment: str | None = None
    filter: str | None = None
    model: ModelName | None = None
    max_runs: int = DEFAULT_MAX_RUNS

    def check(self) -> None:
        """Raise if the selection names nothing, or several things at once.

        Raises:
            SettingsError: the selection cannot be used.
        """
        named = [bool(self.run_ids), self.experiment is not None, self.model is not None]
        if sum(named) > 1 or (self.filter is not None and (self.run_ids or self.model)):
            msg = "name either runs, an experiment or a model; a filter goes with an experiment or alone"
            raise SettingsError(msg)
        if not any(named) and self.filter is None:
            msg = "nothing to report on; name runs, an experiment, a filter or a model"
            raise SettingsError(msg)
        if self.max_runs < 1:
            msg = f"max_runs is {self.max_runs}; it has to be at least 1"
            raise SettingsError(msg)

    @property
    def title(self) -> str:
        """What the report is about, as far as the selection says it."""
        if self.model is not None:
            return str(self.model)
        if self.experiment is not None:
            return f"experiment {self.experiment}"
        if self.run_ids:
            return f"run {self.run_ids[0]}" if len(self.run_ids) == 1 else f"{len(self.run_ids)} runs"
        return f"runs with {self.filter}"
