"""What each of many samples gives, a chunk of them after another, where little is kept of each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.loops.chunks import chunks, joined
from jaxattr.loops.progress import Progress, report


def evaluate_samples(
    evaluate: Callable[[Any], Any], samples: Any, *, chunk: int, progress: Progress | None = None
) -> Any:
    """Evaluate samples one chunk after another, and return what they give.

    Args:
        evaluate: one sample to a pytree of arrays.
        samples: a pytree of arrays with the samples along the first axis.
        chunk: how many samples are evaluated at once, by `vmap`, at most.
        progress: called with the number of samples done, up to a hundred times.

    Returns:
        The pytree, with the samples along the first axis.
    """
    n = len(jax.tree.leaves(samples)[0])
    numbers = chunks(n, chunk).numbers
    count, size = numbers.shape

    def step(part: tuple[Any, Any]) -> Any:
        i, some = part
        found = jax.vmap(evaluate)(some)
        report(progress, i, n, each=size)
        return found

    parts = jax.tree.map(lambda a: a[numbers], samples)
    return joined(lax.map(step, (jnp.arange(count), parts)), n)
