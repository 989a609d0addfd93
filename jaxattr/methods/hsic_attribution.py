"""HSIC attribution: how much a score depends on whether each cell of the image is there."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr import scores
from jaxattr.contract import attribution, resolve_baseline
from jaxattr.facts import method
from jaxattr.image.resize import Resize, resize_cubic
from jaxattr.image.superpixels import parted
from jaxattr.loops.progress import Progress
from jaxattr.loops.quadrature import quasi_random
from jaxattr.loops.variants import evaluate_variants
from jaxattr.methods.coalitions import check_counts
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun


@method(cost="samples x 1 forward", family="perturbations", spatial=True)
def hsic_attribution(
    f: Fun,
    *,
    samples: int = 500,
    cells: int = 8,
    baseline: Baseline = 0.0,
    score: Score = scores.probability,
    enlarge: Resize = resize_cubic,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute the dependence of the score on each cell of a grid, by a kernel (HSIC).

        a_k = 1/n sum_ij (H K_k H)_ij L_ij,    H = 1 - 1/n
        K_kij = 1 where cell k is in both masks i and j or in neither,    else 0
        L_ij = exp(-(s_i - s_j)^2 / (2 w^2)),    w the median of |s|

    for scores `s_i` of the image behind binary masks, the rounded Sobol sequence, the same for all
    images, so that nothing is random. `n` passes tell about all cells at once, where Sobol indices
    take `n` for each. Laws: no cell has a negative value; a score that does not depend on the masks
    gives 0.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: n; memory for `n^2` numbers of each image.
        cells: of the grid, a side.
        baseline: what hidden cells show, a number, an array that broadcasts to `x`, or a function
            of images.
        score: `s`, of `jaxattr.scores`.
        enlarge: how the grid is resized to the image.
        chunk: how many masks are evaluated at once, at most; memory for images grows with it, not
            with their number. A CPU is fastest with one or two, an accelerator with many.
        progress: called with the number of masks done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, without a unit. Cost: `samples` forward passes.

    Example:
        >>> f = lambda x: jnp.stack([x[:, 0, 0, 0], 1 - x[:, 0, 0, 0]], -1)  # sees one pixel
        >>> a = hsic_attribution(f, cells=2, samples=64)(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> jnp.unravel_index(a.argmax(), a.shape)[1:3]
        (Array(0, dtype=int32), Array(0, dtype=int32))

    Reference:
        Novello, Fel and Vigouroux, Making sense of dependence, NeurIPS 2022.

    Differs from Xplique in taking the median of `|s|`, and not of `s`, which may be 0 for logits.
    """
    check_counts(samples=samples, cells=cells, chunk=chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        grid = parted(None, x.shape[:3], cells=cells)
        masks = jnp.asarray(np.round(quasi_random(samples, grid.number)), bool)
        hidden = resolve_baseline(baseline, x)

        def variant(number: Array) -> Array:
            return jnp.where(grid.painted(masks[number])[..., None], x, hidden)

        read = lambda logits, number: score(logits, target)
        numbers = jnp.arange(samples)
        found = evaluate_variants(f, variant, numbers, read, chunk=chunk, progress=progress)
        values = dependence(masks, found)
        drawn = enlarge(
            values.reshape(len(x), min(cells, x.shape[1]), -1), (x.shape[1], x.shape[2])
        )
        return drawn[..., None].astype(x.dtype)

    return attribution(f, explain, differentiates=False)


def dependence(masks: Array, found: Array) -> Array:
    """Estimate the HSIC of each cell and the score.

    Of numbers that are 0 or 1 the kernel is `1 - m_i - m_j + 2 m_i m_j`, of which the centering
    leaves `2 (H m)_i (H m)_j`.

    Args:
        masks: which cells each mask leaves, bool `(n, cells)`.
        found: the score behind each mask, `(B, n)`.

    Returns:
        `(B, cells)`.
    """
    width = jnp.median(jnp.abs(found), -1)[:, None, None]
    difference = found[:, :, None] - found[:, None]
    kernel = jnp.exp(-((difference / jnp.where(width > 0, width, 1)) ** 2) / 2)
    m = masks.astype(found.dtype)
    m -= m.mean(0, keepdims=True)
    einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    return 2 / len(m) * einsum("ik,bij,jk->bk", m, kernel, m)
