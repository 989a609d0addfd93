"""What `pytest -m "not slow"` leaves out: every law keeps a case that would catch its breaking."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Return the values of a parametrized test, all but the `quick` ones marked as slow."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]
