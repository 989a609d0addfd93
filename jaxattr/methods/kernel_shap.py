"""KernelSHAP: Shapley values of the parts of an image, as a weighted regression."""

from functools import partial
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxattr import scores
from jaxattr.contract import attribution, need_key
from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.coalitions import check_counts, game
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun, Key


@method(cost="samples x 1 forward", family="perturbations", random=True, spatial=True)
def kernel_shap(
    f: Fun,
    *,
    samples: int = 1000,
    superpixels: ArrayLike | None = None,
    cells: int = 7,
    baseline: Baseline = 0.0,
    score: Score = scores.logit,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Fit what superpixels add to the score by a regression whose solution is Shapley values.

        min_v sum_z pi(z) (s(z) - s(x') - sum_k z_k v_k)^2    where sum_k v_k = s(x) - s(x')
        pi(z) = (M - 1) / (binom(M, |z|) |z| (M - |z|)),    a_p = v_k / pixels of k, p in k

    `s(z)` is the score of the image with the parts `z`, the others showing the baseline `x'`.
    Coalitions `z` are drawn with the chances `pi`, coalition `i` from `fold_in(key, i)`, the same
    for all images. Laws: `a` sums to `s(x) - s(x')`, to rounding; where all `2^M - 2` coalitions
    are no more than `samples`, they are taken, and `v` are the Shapley values exactly.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: how many coalitions are drawn; several times the number of parts.
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
        `samples + 2` forward passes.

    Raises:
        ValueError: if the superpixels do not fit the images.

    Example:
        >>> f = lambda x: x.prod((1, 2, 3))[:, None]
        >>> a = kernel_shap(f, cells=2)
        >>> x = jnp.array([2.0, 3.0]).reshape(1, 1, 2, 1)
        >>> a(x, jnp.array([0]), key=jax.random.key(0)).ravel().round(4)
        Array([3., 3.], dtype=float32)

    Reference:
        Lundberg and Lee, A unified approach to interpreting model predictions, NeurIPS 2017.

    Differs from Captum, where the constraint is two samples of weight 1e6.
    """
    check_counts(samples=samples, cells=cells, chunk=chunk)

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        key = need_key(key, "kernel_shap")
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
        if 2 ** min(players, 32) - 2 <= samples:
            z, weights = _all_coalitions(players)
        else:
            draw = lambda i: _drawn(jax.random.fold_in(key, i), players)
            z, weights = jax.vmap(draw)(jnp.arange(samples)), jnp.ones(samples)
        ends = jnp.arange(2)[:, None] == jnp.ones((1, players), int)  # nobody, and everybody
        every = jnp.concatenate([ends, z])
        found = played.worth(lambda number: every[number], len(every))
        gains, total = found[:, 2:] - found[:, :1], found[:, 1] - found[:, 0]
        return played.drawn(constrained(z, gains, weights, total, played.there), x)

    return attribution(f, explain, differentiates=False)


def constrained(z: Array, gains: Array, weights: Array, total: Array, there: Array) -> Array:
    """Fit players' values to the gains of coalitions, so that they sum to the total.

    Args:
        z: who is in each coalition, bool `(n, M)`.
        gains: of each image and coalition, `(B, n)`.
        weights: of coalitions, `(n,)`.
        total: the gain of all players, `(B,)`.
        there: which players an image has, `(B, M)`; the others have the value 0.

    Returns:
        `(B, M)`, of least norm where coalitions do not tell players apart.
    """
    z, weights = z.astype(gains.dtype), weights.astype(gains.dtype)
    share = there / there.sum(-1, keepdims=True)
    present = z[None] * there[:, None]
    # Values are equal shares, and what differs from them, which sums to 0.
    centered = present - present.sum(-1, keepdims=True) * share[:, None]
    rest = gains - (present * share[:, None]).sum(-1) * total[:, None]
    einsum = partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    normal = einsum("n,bnk,bnl->bkl", weights, centered, centered)
    right = einsum("n,bnk,bn->bk", weights, centered, rest)
    differs = einsum("bkl,bl->bk", jnp.linalg.pinv(normal, hermitian=True), right)
    return share * total[:, None] + differs


def _all_coalitions(players: int) -> tuple[Array, Array]:
    numbers = np.arange(1, 2**players - 1)[:, None]
    z = numbers >> np.arange(players) & 1
    sizes = z.sum(-1)
    chances = [(players - 1) / (comb(players, k) * k * (players - k)) for k in sizes]
    return jnp.asarray(z, bool), jnp.asarray(chances)


def _drawn(key: Key, players: int) -> Array:
    """Draw a coalition: its size by the sum of `pi` over those of the size, then its players."""
    sized, order = jax.random.split(key)
    sizes = np.arange(1, players)
    chances = 1 / (sizes * (players - sizes))
    size = jax.random.choice(sized, jnp.asarray(sizes), p=jnp.asarray(chances / chances.sum()))
    return jax.random.permutation(order, players) < size
