"""Removed pixels replaced by what their neighbors let expect, as ROAD does."""

from typing import Protocol

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from jaxattr.contract import check_not_negative, need_key
from jaxattr.image.maps import heatmap
from jaxattr.loops.progress import Progress
from jaxattr.metrics.arguments import batch_of, booleans
from jaxattr.metrics.perturbation_curve import by_fraction, perturbation_curve, unchanged
from jaxattr.metrics.reductions import Reduction
from jaxattr.metrics.results import Curve
from jaxattr.scores import Score, accuracy
from jaxattr.types import Array, Fun, Key

WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
"""Of the eight neighbors of a pixel."""


class RandomCurve(Protocol):
    """A curve of a model that draws random numbers."""

    def __call__(self, x: Array, target: Array, attribution: Array, *, key: Key) -> Curve:
        """Return the curve of every image."""
        ...


def linear_imputation(x: Array, removed: Array, *, tolerance: float = 1e-5) -> Array:
    """Replace removed pixels by the weighted means of their neighbors, which are removed or not.

        x_p = sum_q w_pq x_q / sum_q w_pq    for every removed pixel p

    with the eight neighbors q of p inside the image, `w_pq` 1/6 beside and 1/12 across. The matrix
    is symmetric and, as long as a pixel is left, positive definite: conjugate gradients solve the
    sparse system for each image and channel. Law: an image that is linear in its rows and columns
    comes back where pixels inside it are removed.

    Args:
        x: images `(B, H, W, C)`.
        removed: bool `(B, H, W)`.
        tolerance: of the residual, as a share of what is given.

    Returns:
        The shape and dtype of `x`; zeros where nothing of an image is left.

    Raises:
        ValueError: if `removed` is not bool, or not one for every pixel.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.array([0.0, 9.0, 2.0]).reshape(1, 1, 3, 1)
        >>> linear_imputation(x, (x == 9)[..., 0]).ravel().tolist()
        [0.0, 1.0, 2.0]

    Reference:
        Rong, Leemann, Borisov, Kasneci and Kasneci, A consistent and efficient evaluation strategy
        for attribution methods, ICML 2022, section 5.

    Differs from the authors' code in the solver alone.
    """
    x = jnp.asarray(x)
    removed = booleans("removed", removed, x.shape[:3])
    there = _neighbors(jnp.ones(x.shape[1:3], x.dtype))

    def fill(image: Array, gone: Array) -> Array:
        """Solve for one channel `(H, W)`."""
        matrix = lambda z: jnp.where(gone, there * z - _neighbors(jnp.where(gone, z, 0)), z)
        given = jnp.where(gone, _neighbors(jnp.where(gone, 0, image)), 0)
        found, _ = cg(matrix, given, tol=tolerance, maxiter=10 * sum(image.shape))
        return jnp.where(gone, found, image)

    return jax.vmap(jax.vmap(fill, (-1, None), -1))(x, removed)


def road(
    f: Fun,
    *,
    fraction: float = 0.9,
    steps: int = 9,
    noise: float = 0.01,
    score: Score = accuracy,
    reduce: Reduction = heatmap,
    chunk: int = 16,
    progress: Progress | None = None,
) -> RandomCurve:
    """Measure what is left of a class as pixels are imputed, the most relevant first (ROAD).

        curve_i = s_t( x with its n_i most attributed pixels imputed + noise ),
        n_i = round(i fraction HW / steps),    i = 0..steps;    score = area under the curve

    A removed pixel keeps what its neighbors tell of it (`linear_imputation`), so that the shape of
    the mask tells the model little: rankings hardly depend on the order, and no network is trained
    anew. Most relevant first, lower is better; least relevant first, by `reduce=lambda a:
    -a.sum(-1)`, higher is better. Law: `curve` starts at the score of `x`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        fraction: the share of the pixels that are imputed at the last step, in (0, 1).
        steps: their number.
        noise: standard deviation of what is added to imputed pixels, in units of the model's input.
        score: what is measured of the logits, of `jaxattr.scores`: the paper's accuracy, or
            `probability`.
        reduce: how the channels of an attribution become one number.
        chunk: how many steps of each image are evaluated at once, at most.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        A function of `x`, `target`, `attribution` and `key` to a `Curve`. The noise is the same at
        every step. Cost: steps + 1 forward passes, and as many sparse systems.

    Raises:
        ValueError: if shapes do not fit, or `x` or `target` holds a wrong value.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxattr import scores
        >>> f = lambda x: x.sum((1, 2))
        >>> x = jnp.array([0.0, 9.0, 2.0, 2.0]).reshape(1, 1, 4, 1)
        >>> measure = road(f, fraction=0.5, steps=2, noise=0, score=scores.logit)
        >>> jax.jit(measure)(x, jnp.array([0]), x, key=jax.random.key(0)).curve.round().tolist()
        [[13.0, 5.0, 4.0]]

    Reference:
        Rong, Leemann, Borisov, Kasneci and Kasneci, A consistent and efficient evaluation strategy
        for attribution methods, ICML 2022.
    """
    check_not_negative("noise", noise)
    if not fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected less than 1, of which pixels are left")

    def measure(x: Array, target: Array, attribution: Array, *, key: Key) -> Curve:
        x = batch_of(x)
        added = noise * jax.random.normal(need_key(key, "road"), x.shape[1:], x.dtype)
        return perturbation_curve(
            f,
            before=unchanged,
            after=unchanged,
            counts=by_fraction(fraction, steps),
            score=score,
            reduce=reduce,
            chunk=chunk,
            progress=progress,
            replace=lambda x, removed: linear_imputation(x, removed) + added,
        )(x, target, attribution)

    return measure


def _neighbors(a: Array) -> Array:
    """Return the weighted sum of each pixel's neighbors inside the image, `(H, W)`."""
    padded, (rows, columns) = jnp.pad(a, 1), a.shape
    return jnp.stack(
        [
            weight * padded[i : i + rows, j : j + columns]
            for i, row in enumerate(WEIGHTS)
            for j, weight in enumerate(row)
            if weight
        ]
    ).sum(0)
