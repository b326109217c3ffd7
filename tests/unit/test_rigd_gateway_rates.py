"""The rates that the gateway can enforce are exact, and every other one is refused with its neighbours."""

from __future__ import annotations

import pytest

from rigd.gateway import rates


@pytest.mark.parametrize("rate", rates.RATES)
def test_possible_rate_is_exact(rate: int) -> None:
    assert rates.interval(rate) * rate == 600


@pytest.mark.parametrize(
    ("rate", "nearest"), [(90, "75 or 100"), (7, "6 or 8"), (0, "1"), (-5, "1"), (601, "600"), (10**9, "600")]
)
def test_other_rate_is_refused_with_the_nearest_ones(rate: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"^{rate} requests a minute .* the nearest possible: {nearest}$"):
        rates.interval(rate)


@pytest.mark.parametrize(("rate", "burst", "tenths"), [(60, 6, 50), (600, 60, 59), (6, 1, 0), (1, 60, 35400)])
def test_window_is_the_time_of_the_requests_after_the_first(rate: int, burst: int, tenths: int) -> None:
    assert rates.window(rate, burst) == tenths


@pytest.mark.parametrize(("rate", "burst"), [(60, 0), (60, -1), (60, 3601), (1, 61)])
def test_burst_of_nothing_or_of_more_than_an_hour_is_refused(rate: int, burst: int) -> None:
    with pytest.raises(ValueError, match=f"a burst of {burst} is not possible at {rate} requests a minute; use 1 to "):
        rates.window(rate, burst)


def test_no_window_reaches_an_hour() -> None:
    assert max(rates.window(rate, 60 * rate) for rate in rates.RATES) < rates.HOUR
