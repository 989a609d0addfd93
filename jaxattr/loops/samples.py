"""What each of many samples gives, a chunk of them after another, where little is kept of each."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.loops.chunks import chunks, joined
from jaxattr.loops.progress import Progress, report


def evaluate_samples(
    evaluate: Callable[..., Any],
    samples: Any,
    *batch: Any,
    chunk: int,
    progress: Progress | None = None,
) -> Any:
    """Evaluate samples one chunk after another, and return what they give.

    Args:
        evaluate: one sample, and `batch`, to a pytree of arrays.
        samples: a pytree of arrays with the samples along the first axis.
        *batch: arrays with the images in front, as for `sampled`.
        chunk: how many samples are evaluated at once, at most.
        progress: called with the number of samples done, up to a hundred times.

    Returns:
        The pytree, with the samples along the first axis.
    """
    n = len(jax.tree.leaves(samples)[0])
    numbers = chunks(n, chunk).numbers
    count, size = numbers.shape

    def step(part: tuple[Any, Any]) -> Any:
        i, some = part
        found = sampled(evaluate, some, *batch)
        report(progress, i, n, each=size)
        return found

    parts = jax.tree.map(lambda a: a[numbers], samples)
    return joined(lax.map(step, (jnp.arange(count), parts)), n)


def sampled(evaluate: Callable[..., Any], samples: Any, *batch: Any) -> Any:
    """Evaluate a chunk of samples for all images of a batch, `(n, B, ...)`.

    Where `evaluate` takes single images, the samples of an image stay together, so that a batch
    split over devices stays so. Law: equals `[evaluate(sample, *batch) for sample in samples]`.

    Args:
        evaluate: a sample, and arrays with the images in front, to a pytree of arrays with
            them in front.
        samples: a pytree of arrays with the samples along the first axis.
        *batch: what there is for each image, `(B, ...)`; none if all is in `samples`.

    Example:
        >>> sampled(lambda s, x: s * x, jnp.array([2, 3]), jnp.array([1, 10])).tolist()
        [[2, 20], [3, 30]]
    """

    def together(samples: Any, *batch: Any) -> Any:
        def of_image(*image: Any) -> Any:
            alone = jax.tree.map(lambda a: a[None], image)
            return jax.vmap(lambda sample: evaluate(sample, *alone))(samples)

        return jax.vmap(of_image, out_axes=1)(*batch)

    if batch and len(jax.tree.leaves(samples)[0]) > 1:
        # What is known of classes is checked before `vmap` hides it.
        jax.eval_shape(lambda s: evaluate(s, *batch), jax.tree.map(lambda a: a[0], samples))
        try:
            found = jax.tree.leaves(jax.eval_shape(together, samples, *batch))
        except (TypeError, ValueError):
            found = []  # it may close over something for each image
        if found and all(a.shape[2:3] == (1,) for a in found):
            return jax.tree.map(lambda a: a[:, :, 0], together(samples, *batch))
    return jax.vmap(lambda sample: evaluate(sample, *batch))(samples)
