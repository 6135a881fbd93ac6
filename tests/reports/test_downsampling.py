"""Downsampling: the ends, the extremes, one-point spikes and gaps survive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reports.downsampling import downsample

ANY_VALUES = arrays(np.float64, st.integers(0, 400), elements=st.floats(allow_nan=True, allow_infinity=True, width=32))


@settings(deadline=None)
@given(y=ANY_VALUES, limit=st.integers(5, 60))
def test_a_line_keeps_its_order_ends_extremes_and_gaps(y: np.ndarray, limit: int) -> None:
    x = np.arange(len(y), dtype=np.float64)
    kept_x, kept_y = downsample(x, y, limit)
    assert len(kept_x) == len(kept_y) <= limit
    assert np.all(np.diff(kept_x) > 0)
    np.testing.assert_array_equal(kept_y, y[kept_x.astype(int)])  # no value is made up or moved
    if len(y):
        assert kept_x[0] == 0
        assert kept_x[-1] == len(y) - 1
    finite = y[np.isfinite(y)]
    if len(finite):
        assert np.nanmin(kept_y[np.isfinite(kept_y)]) == finite.min()
        assert np.nanmax(kept_y[np.isfinite(kept_y)]) == finite.max()
    assert np.isfinite(y).all() == np.isfinite(kept_y).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(2_001, 30_000), st.data())
def test_every_spike_of_one_point_survives(count: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20, unique=True))
    y = np.zeros(count)
    y[places] = np.arange(1, len(places) + 1)
    x = np.arange(count, dtype=np.float64)
    kept_x, kept_y = downsample(x, y)
    bucket = count / 900
    for place in places:
        near = [other for other in places if abs(other - place) <= bucket]
        highest = max(near, key=lambda other: y[other])
        assert y[highest] in kept_y[kept_x == highest]


def test_a_gap_in_the_middle_of_many_points_stays_a_gap() -> None:
    y = np.ones(100_000)
    y[50_000] = np.nan
    y[70_000] = np.inf
    kept_x, kept_y = downsample(np.arange(len(y), dtype=np.float64), y)
    assert kept_x[~np.isfinite(kept_y)].tolist() == [50_000, 70_000]
    assert len(kept_x) <= 2_000


@pytest.mark.parametrize("count", [0, 1, 2, 2_000])
def test_short_lines_stay_as_they_are(count: int) -> None:
    x, y = np.arange(count, dtype=np.float64), np.full(count, np.nan)
    kept = downsample(x, y)
    assert kept[0] is x
    assert kept[1] is y
