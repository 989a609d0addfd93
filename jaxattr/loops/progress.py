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
    """Call `progress` at the end of an iteration of a loop, up to a hundred times in all.

    Args:
        progress: called with the number of steps done, or None.
        i: the iteration, counted from 0.
        steps: how many there are in the whole loop.
        each: how many steps an iteration makes; the last one may make fewer.
    """
    if progress is None:
        return
    every = -(-steps // (100 * each))
    tell = partial(jax.debug.callback, partial(_tell, progress, steps), (i + 1) * each)
    lax.cond((i + 1) % every == 0, tell, lambda: None)


def _tell(progress: Progress, steps: int, done: Array) -> None:
    progress(min(int(done), steps))
