"""RISE: random masks, averaged by the score of what they leave visible."""

import jax
import jax.numpy as jnp
from jax import lax

from jaxattr import scores
from jaxattr.contract import attribution, check_positive, need_key, repeated
from jaxattr.facts import method
from jaxattr.image.masks import grid_mask
from jaxattr.loops.chunks import chunks
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress, report
from jaxattr.loops.variants import logits_of
from jaxattr.scores import Score
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Fun, Key


@method(cost="samples x 1 forward", family="perturbations", random=True, spatial=True)
def rise(
    f: Fun,
    *,
    samples: int = 4000,
    cells: int = 7,
    probability: float = 0.5,
    score: Score = scores.probability,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Average random masks, each weighted by the score of the image behind it.

        a = 1 / (p n) sum_i s(x * m_i) m_i      (eq. 6)

    A mask `m_i` is a small grid of zeros and ones, enlarged bilinearly and cropped at a random
    offset (`jaxattr.image.masks.grid_mask`), the same for all channels. They are drawn in the loop,
    mask `i` from `fold_in(key, i)`, and all images of a batch meet the same ones. Laws: a score
    that does not depend on the image gives the mean mask, which is flat in expectation; the same
    for every `chunk`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: n. The paper takes 4000 for VGG16 and 8000 for ResNet-50.
        cells: of the grid, a side.
        probability: p, of a cell to be 1.
        score: `s`, of `jaxattr.scores`.
        chunk: how many masks are evaluated at once, at most; memory grows with it, not with
            `samples`. A CPU is fastest with one or two, an accelerator with many.
        progress: called with the number of masks done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in units of the score; it is all positive for a
        probability. It needs a key. Cost: `samples` forward passes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jnp.stack([x[:, 1, 1, 0], 1 - x[:, 1, 1, 0]], -1)  # sees one pixel
        >>> a = rise(f, samples=200, cells=4)(jnp.ones((1, 8, 8, 1)), jnp.array([0]),
        ...     key=jax.random.key(0))
        >>> jnp.unravel_index(a.argmax(), a.shape)[1:3]
        (Array(1, dtype=int32), Array(1, dtype=int32))

    Reference:
        Petsiuk, Das and Saenko, RISE, BMVC 2018.
    """
    for name, value in {"samples": samples, "cells": cells, "chunk": chunk}.items():
        check_positive(name, value)
    if not 0 < probability <= 1:
        raise ValueError(f"probability is {probability}; expected more than 0 and at most 1")
    network = lowered(f)

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        key = need_key(key, "rise")
        batch, height, width, _ = x.shape
        numbers, valid = chunks(samples, chunk)
        targets = repeated(target, numbers.shape[1])

        def draw(number: Array) -> Array:
            return grid_mask(
                jax.random.fold_in(key, number),
                (height, width),
                cells=cells,
                probability=probability,
                dtype=x.dtype,
            )

        def step(total: Array, chunk_: tuple[Array, Array, Array]) -> tuple[Array, None]:
            i, numbers, valid = chunk_
            masks = jax.vmap(draw)(numbers)
            logits = logits_of(network, masks[None, ..., None] * x[:, None])
            scores = score(logits.reshape(len(targets), -1), targets).reshape(batch, -1)
            weights = jnp.where(valid[None], scores, 0)
            report(progress, i, samples, each=numbers.size)
            sums = jnp.einsum("bn,nhw->bhw", weights, masks, precision=lax.Precision.HIGHEST)
            return total + sums, None

        start = jnp.zeros_like(at_least_float32(x[..., 0]))
        total, _ = lax.scan(step, start, (jnp.arange(len(numbers)), numbers, valid))
        return (total / (samples * probability))[..., None].astype(x.dtype)

    return attribution(f, explain, differentiates=False)
