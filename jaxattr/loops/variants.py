"""A model's answers for many variants of its images, in memory that does not grow with them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr.contract import at_any_size
from jaxattr.loops.chunks import chunks, joined
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress, report
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Fun


def evaluate_variants(
    f: Fun,
    variant: Callable[[Array], Array],
    numbers: Array,
    read: Callable[[Array, Array], Any],
    *,
    chunk: int,
    progress: Progress | None = None,
) -> Any:
    """Evaluate a model on variants of a batch of images, a chunk of them after another.

    `f` is `jaxattr.lowered`, and traced once. Chunks are of about equal size, so
    that few variants are computed twice: of 225 in chunks of at most 16, none.

    Args:
        f: the model.
        variant: one of `numbers` to the images `(B, H, W, C)` that it stands for.
        numbers: what tells the variants apart, `(n,)`.
        read: logits `(B, K)`, in at least float32, and the variant's number to what is kept of
            them, a pytree of `(B,)`.
        chunk: how many variants of each image are evaluated at once, at most.
        progress: called with the number of variants done, up to a hundred times.

    Returns:
        The pytree with `(B, n)` for each `(B,)`.
    """
    network = lowered(f)
    logits = lambda numbers: logits_of(network, jax.vmap(variant, out_axes=1)(numbers))
    return evaluate(logits, numbers, read, chunk=chunk, progress=progress)


def evaluate(
    logits_at: Callable[[Array], Array],
    numbers: Array,
    read: Callable[[Array, Array], Any],
    *,
    chunk: int,
    progress: Progress | None = None,
) -> Any:
    """Evaluate numbered variants of whatever has logits, a chunk of them after another.

    Args:
        logits_at: some of the numbers `(m,)` to logits `(B, m, K)`.
        numbers: as for `evaluate_variants`.
        read: as for `evaluate_variants`.
        chunk: as for `evaluate_variants`.
        progress: as for `evaluate_variants`.

    Returns:
        As `evaluate_variants`.
    """
    n = numbers.shape[0]
    order = chunks(n, chunk).numbers
    count, size = order.shape

    def step(chunk_: tuple[Array, Array]) -> Any:
        i, numbers = chunk_
        logits = at_least_float32(logits_at(numbers))
        report(progress, i, n, each=size)
        return jax.vmap(read, (1, 0))(logits, numbers)

    values = joined(lax.map(step, (jnp.arange(count), numbers[order])), n)
    return jax.tree.map(jnp.transpose, values)


def logits_of(network: Fun, images: Array) -> Array:
    """Return the logits, in at least float32, of variants of images `(B, n, H, W, C)`, `(B, n, K)`.

    The variants of an image stay together, so that a batch that is sharded over devices stays so.
    """
    logits = at_any_size(network, images.reshape(-1, *images.shape[2:]))
    return at_least_float32(logits).reshape(*images.shape[:2], logits.shape[-1])
