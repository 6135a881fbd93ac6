"""Metric histories as pandas data frames, ready for ``rolling``, ``corr`` and ``resample``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from mlflow_ipfs.errors import SettingsError

from .data import SYSTEM_PREFIX

if TYPE_CHECKING:
    import pandas as pd

    from .data import ReportData, Run, Series

TIDY_COLUMNS: Final = ("run_id", "run_name", "metric", "step", "time", "value")


class _Column(NamedTuple):
    run: Run
    metric: str
    series: Series


def get_metrics_dataframe(
    data: ReportData,
    *,
    model_id: str | None = None,
    run_id: str | None = None,
    shape: Literal["wide", "tidy"] = "wide",
    index: Literal["step", "time"] = "step",
    system: bool = False,
) -> pd.DataFrame:
    """Return metric histories as a data frame.

    Args:
        data: the runs.
        model_id: only the metrics below ``<model_id>/``, without this prefix, as ``MetricsCollector`` records them.
        run_id: only the metrics of one run.
        shape: ``wide`` has a column for each metric; ``tidy`` has a row for each point, and the columns ``TIDY_COLUMNS``.
        index: the index of a wide frame: the step, or the time in UTC. Of several points of a metric with the same index,
            the latest one counts. What a metric has no point for is NaN.
        system: whether to include system metrics, as ``system/<node>/<name>``.

    Returns:
        The frame, sorted by its index. A wide frame of several runs has the index (run id, step or time).

    Raises:
        SettingsError: ``shape`` or ``index`` has another value.
        ImportError: pandas is not installed.
    """
    if shape not in {"wide", "tidy"} or index not in {"step", "time"}:
        msg = f"shape={shape!r}, index={index!r} cannot be used; shape is 'wide' or 'tidy', index is 'step' or 'time'"
        raise SettingsError(msg)
    runs = [run for run in data.runs if run_id is None or run.run_id == run_id]
    columns = [column for run in runs for column in _columns_of(run, model_id, system=system)]
    if shape == "tidy":
        return _make_tidy(columns)
    if len(runs) == 1:
        return _make_wide(columns, index)
    return _stack({run.run_id: [column for column in columns if column.run is run] for run in runs}, index)


def _columns_of(run: Run, model_id: str | None, *, system: bool) -> list[_Column]:
    prefix = "" if model_id is None else f"{model_id}/"
    found = [
        _Column(run, key.removeprefix(prefix), series) for key, series in run.metrics.items() if key.startswith(prefix)
    ]
    if system:
        for node, group in run.system.items():
            below = f"{SYSTEM_PREFIX}{node}/" if node else SYSTEM_PREFIX
            found += [_Column(run, f"{below}{name}", series) for name, series in group.items()]
    return found


def _make_tidy(columns: list[_Column]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 - an optional dependency

    lengths = [len(column.series) for column in columns]
    series = [column.series for column in columns]
    return pd.DataFrame(
        {
            "run_id": _repeat([column.run.run_id for column in columns], lengths),
            "run_name": _repeat([column.run.name for column in columns], lengths),
            "metric": _repeat([column.metric for column in columns], lengths),
            "step": np.concatenate([one.steps for one in series]) if series else np.empty(0, np.int64),
            "time": _to_times(np.concatenate([one.times_ms for one in series]) if series else np.empty(0, np.int64)),
            "value": np.concatenate([one.values for one in series]) if series else np.empty(0),
        },
        columns=list(TIDY_COLUMNS),
    )


def _make_wide(columns: list[_Column], index: str) -> pd.DataFrame:
    """Return a frame with a column for each metric of one run."""
    import pandas as pd  # noqa: PLC0415

    found = {column.metric: _to_pandas(column.series, index) for column in columns if len(column.series)}
    if not found:
        empty = pd.Index([], dtype="int64") if index == "step" else _to_times(np.empty(0, np.int64))
        return pd.DataFrame(index=empty.rename(index))
    frame = pd.concat(found, axis=1).sort_index()
    frame.index.name = index
    return frame


def _stack(columns_by_run: dict[str, list[_Column]], index: str) -> pd.DataFrame:
    """Return the wide frames of several runs below each other."""
    import pandas as pd  # noqa: PLC0415

    frames = {run_id: _make_wide(columns, index) for run_id, columns in columns_by_run.items() if columns}
    if not frames:
        return pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["run_id", index]))
    return pd.concat(frames, names=["run_id", index])


def _to_pandas(series: Series, index: str) -> pd.Series:
    """Return a series with a unique index: of equal steps or times, the latest point."""
    import pandas as pd  # noqa: PLC0415

    at = series.steps if index == "step" else series.times_ms
    order = np.argsort(at, kind="stable")  # points are in the order of step and time already
    at, values = at[order], series.values[order]
    is_last = np.append(at[1:] != at[:-1], True)
    at, values = at[is_last], values[is_last]
    return pd.Series(values, index=_to_times(at) if index == "time" else at)


def _to_times(times_ms: Any) -> pd.DatetimeIndex:  # noqa: ANN401 - an array
    import pandas as pd  # noqa: PLC0415

    return pd.to_datetime(times_ms, unit="ms", utc=True)


def _repeat(texts: list[str], lengths: list[int]) -> Any:  # noqa: ANN401 - pandas has no types
    import pandas as pd  # noqa: PLC0415

    categories = list(dict.fromkeys(texts))
    codes = np.repeat([categories.index(text) for text in texts], lengths) if texts else np.empty(0, np.int64)
    return pd.Categorical.from_codes(codes.astype(np.int64), categories=categories)
