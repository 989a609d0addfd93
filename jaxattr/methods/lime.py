"""LIME: a linear model of the score near the image, in its parts."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jaxattr import scores
from jaxattr.contract import attribution, check_not_negative, need_key
from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.coalitions import check_counts, game
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun, Key


@method(cost="samples x 1 forward", family="perturbations", random=True, spatial=True)
def lime(
    f: Fun,
    *,
    samples: int = 1000,
    width: float = 0.25,
    alpha: float = 1.0,
    superpixels: ArrayLike | None = None,
    cells: int = 7,
    baseline: Baseline = 0.0,
    score: Score = scores.probability,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Fit a linear model to the score of the image with superpixels hidden at random (LIME).

        min_{v, c} sum_z pi(z) (s(z) - c - sum_k z_k v_k)^2 + alpha |v|^2      (eq. 2)
        pi(z) = exp(-D(z)^2 / (2 width^2)),    D(z) = 1 - sqrt(|z| / M)
        a_p = v_k / pixels of k,    for pixel p of part k

    `s(z)` is the score of the image with the parts `z`, each there with a chance of one half; `D`
    is the cosine distance to the whole image, which is sample 0. Coalition `i` is drawn from
    `fold_in(key, i)`, the same for all images. Law: where parts do not interact and `alpha` is
    small, `v_k` is what hiding part `k` takes off the score.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: how many coalitions there are.
        width: of the kernel, in units of the distance.
        alpha: strength of the ridge.
        superpixels: parts of the images, whole numbers from 0, `(B, H, W)`, or `(H, W)` for all
            images; by default the cells of a grid. `np.arange(H * W).reshape(H, W)` has pixels.
        cells: of the grid, a side.
        baseline: what hidden parts show, a number, an array that broadcasts to `x`, or a function
            of images.
        score: `s`, of `jaxattr.scores`.
        chunk: how many coalitions are evaluated at once, at most; memory for images grows with it,
            not with their number.
        progress: called with the number of coalitions done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in units of the score. It needs a key. Cost:
        `samples` forward passes.

    Raises:
        ValueError: if the superpixels do not fit the images, or `width` is not positive.

    Example:
        >>> f = lambda x: x.sum((1, 2, 3))[:, None]
        >>> a = lime(f, cells=2, alpha=1e-3, score=scores.logit)
        >>> x = jnp.array([2.0, 3.0]).reshape(1, 1, 2, 1)
        >>> a(x, jnp.array([0]), key=jax.random.key(0)).ravel().round(2)
        Array([2., 3.], dtype=float32)

    Reference:
        Ribeiro, Singh and Guestrin, Why should I trust you, KDD 2016.

    Differs from the authors' code in hiding parts by a baseline, by default 0, where they show the
    mean color of each, in keeping all parts, and in weighing an image that has fewer parts than
    others by its own.
    """
    check_counts(samples=samples, cells=cells, chunk=chunk)
    check_not_negative("alpha", alpha)
    if not width > 0:
        raise ValueError(f"width is {width}; expected a positive number")

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        key = need_key(key, "lime")
        played = game(
            f,
            x,
            target,
            superpixels=superpixels,
            cells=cells,
            baseline=baseline,
            score=score,
            chunk=chunk,
            progress=progress,
        )
        players = played.parts.number
        draw = lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), 0.5, (players,))
        z = jax.vmap(draw)(jnp.arange(samples)).at[0].set(True)
        found = played.worth(lambda number: z[number], samples)
        return played.drawn(ridge(z, found, played.there, width=width, alpha=alpha), x)

    return attribution(f, explain, differentiates=False)


def ridge(z: Array, scores: Array, there: Array, *, width: float, alpha: float) -> Array:
    """Fit the weights of LIME.

    Args:
        z: who is in each coalition, bool `(n, M)`.
        scores: of each image and coalition, `(B, n)`.
        there: which parts an image has, `(B, M)`; the others have the weight 0.
        width: as for `lime`.
        alpha: as for `lime`.

    Returns:
        `(B, M)`.
    """
    present = z.astype(scores.dtype)[None] * there[:, None]
    distance = 1 - jnp.sqrt(present.sum(-1) / there.sum(-1, keepdims=True))
    weights = jnp.exp(-(distance**2) / (2 * width**2))
    shares = (weights / weights.sum(-1, keepdims=True))[..., None]
    centered = present - (shares * present).sum(1, keepdims=True)
    rest = scores - (shares[..., 0] * scores).sum(1, keepdims=True)
    einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    normal = einsum("bn,bnk,bnl->bkl", weights, centered, centered)
    right = einsum("bn,bnk,bn->bk", weights, centered, rest)
    penalty = alpha * jnp.eye(z.shape[-1], dtype=normal.dtype)[None]
    return einsum("bkl,bl->bk", jnp.linalg.pinv(normal + penalty, hermitian=True), right)
