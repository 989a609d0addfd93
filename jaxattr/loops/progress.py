"""How far a long loop on the device has come."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
from jax import lax

from jaxattr.types import Array

Progress: TypeAlias = Callable[[int], None]
"""Told how many steps are done."""


def report(progress: Progress | None, i: Array, steps: int, *, each: int = 1) -> None:
    """Tell that turn `i` of a loop is done, up to a hundred times in all.

    Args:
        progress: called with the number of steps done; None is not told.
        i: the turn, counted from 0.
        steps: how many there are in the whole loop.
        each: how many steps a turn makes.
    """
    if progress is None:
        return
    every = -(-steps // (100 * each))
    tell = partial(jax.debug.callback, partial(_tell, progress, steps), (i + 1) * each)
    lax.cond((i + 1) % every == 0, tell, lambda: None)


def _tell(progress: Progress, steps: int, done: Array) -> None:
    progress(min(int(done), steps))
