"""Sobol attribution: the share of a score's variance in which each cell of the image has a part."""

import jax.numpy as jnp

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


@method(cost="samples x (1 + 1 for each cell) forward", family="perturbations", spatial=True)
def sobol_attribution(
    f: Fun,
    *,
    samples: int = 32,
    cells: int = 8,
    baseline: Baseline = 0.0,
    score: Score = scores.logit,
    enlarge: Resize = resize_cubic,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute the variance of the score under random masks: total Sobol indices of a grid.

        T_k = sum_i (s(A_i) - s(C_ki))^2 / (2 n var_i s(A_i))

    Masks `A` and `B` have a number of [0, 1] for each cell, which mixes the image with the baseline
    there; `C_k` is `A` with cell `k` of `B`: points of the Sobol sequence, the same for
    all images, so that nothing is random. An index counts a cell's interactions with others too,
    and has no sign. Laws: where cells do not interact the indices are the shares of the variance,
    so that they sum to 1 up to the error of the sum over `i`; a cell that changes nothing has 0.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: n, best a power of 2.
        cells: of the grid, a side.
        baseline: what a mask of 0 shows, a number, an array that broadcasts to `x`, or a function
            of images, such as a blur.
        score: `s`, of `jaxattr.scores`.
        enlarge: how the grid is resized to the image.
        chunk: how many masks are evaluated at once, at most; memory grows with it, not with their
            number. A CPU is fastest with one or two, an accelerator with many.
        progress: called with the number of masks done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in shares of the variance; 0 where the score does
        not vary. Cost: `samples (cells^2 + 1)` forward passes.

    Example:
        >>> f = lambda x: (3 * x[:, 0, 0] + x[:, 0, 1])
        >>> a = sobol_attribution(f, cells=2, samples=256)
        >>> maps = a(jnp.ones((1, 1, 2, 1)), jnp.array([0]))
        >>> [f"{value:.1f}" for value in maps.ravel()]
        ['0.9', '0.1']

    Reference:
        Fel, Cadene, Chalvidal, Cord, Vigouroux and Serre, Look at the variance, NeurIPS 2021.

    Differs from Xplique in dividing the variance by `n` as the authors' code does, not `n - 1`.
    """
    check_counts(samples=samples, cells=cells, chunk=chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        grid = parted(None, x.shape[:3], cells=cells)
        pairs = quasi_random(samples, 2 * grid.number).reshape(samples, 2, grid.number)
        first, second = (jnp.asarray(pairs[:, i], x.dtype) for i in (0, 1))
        hidden = resolve_baseline(baseline, x)

        def variant(number: Array) -> Array:
            """Show the image through A, then through every `C_k`."""
            cell, i = jnp.divmod(number, samples)
            swapped = jnp.arange(grid.number) == cell - 1
            mask = grid.painted(jnp.where(swapped, second[i], first[i]))[..., None]
            return hidden + mask * (x - hidden)

        read = lambda logits, number: score(logits, target)
        numbers = jnp.arange(samples * (grid.number + 1))
        found = evaluate_variants(f, variant, numbers, read, chunk=chunk, progress=progress)
        indices = total_indices(found.reshape(len(x), grid.number + 1, samples))
        drawn = enlarge(
            indices.reshape(len(x), min(cells, x.shape[1]), -1), (x.shape[1], x.shape[2])
        )
        return drawn[..., None].astype(x.dtype)

    return attribution(f, explain, differentiates=False)


def total_indices(found: Array) -> Array:
    """Estimate total Sobol indices as Jansen does.

    Args:
        found: scores by A, then by each `C_k`, `(B, 1 + cells, n)`.

    Returns:
        `(B, cells)`.
    """
    whole, swapped = found[:, :1], found[:, 1:]
    variance = whole.var(-1)
    changes = ((whole - swapped) ** 2).mean(-1) / 2
    flat = variance == 0
    return jnp.where(flat, 0, changes / jnp.where(flat, 1, variance))
