"""Shapley values of the parts of an image, by drawing orders in which they appear."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr import scores
from jaxattr.contract import attribution, need_key
from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.coalitions import check_counts, game
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun, Key


@method(cost="samples x 1 forward for each part", family="perturbations", random=True, spatial=True)
def shapley_sampling(
    f: Fun,
    *,
    samples: int = 25,
    superpixels: ArrayLike | None = None,
    cells: int = 7,
    baseline: Baseline = 0.0,
    score: Score = scores.logit,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Average what each superpixel adds to the score as they appear in random orders.

        v_k = 1/n sum_i s(parts before k in order i, and k) - s(parts before k in order i)
        a_p = v_k / pixels of k,    for pixel p of part k

    where other parts show the baseline `x'`: an unbiased estimate of Shapley values. Order `i` is
    drawn from `fold_in(key, i)`, the same for all images. Laws: `a` sums to `s(x) - s(x')`, to
    rounding, for any number of samples; where parts do not interact one sample is exact.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        samples: n.
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
        An attribution of shape `(B, H, W, 1)`, in units of the score. It needs a key. Cost: for
        every sample a forward pass for each part but the last, and two more.

    Raises:
        ValueError: if the superpixels do not fit the images.

    Example:
        >>> f = lambda x: x.prod((1, 2, 3))[:, None]
        >>> a = shapley_sampling(f, samples=400, cells=2)
        >>> x = jnp.array([2.0, 3.0]).reshape(1, 1, 2, 1)
        >>> a(x, jnp.array([0]), key=jax.random.key(0)).sum().item()
        6.0

    Reference:
        Castro, Gomez and Tejada, Polynomial calculation of the Shapley value based on sampling,
        Computers and Operations Research 2009.
    """
    check_counts(samples=samples, cells=cells, chunk=chunk)

    def explain(x: Array, target: Array, key: Key | None) -> Array:
        key = need_key(key, "shapley_sampling")
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
        draw = lambda i: jax.random.permutation(jax.random.fold_in(key, i), players)
        places = jax.vmap(draw)(jnp.arange(samples))
        return played.drawn(marginal(played.worth, places), x)

    return attribution(f, explain, differentiates=False)


def marginal(worth: Callable[[Callable[[Array], Array], int], Array], places: Array) -> Array:
    """Average what players add to those before them, `(B, M)`, by places in orders `(n, M)`."""
    samples, players = places.shape
    between = players - 1

    def stay(number: Array) -> Array:
        """Let first nobody, then everybody play, then the first few of each order."""
        order, some = jnp.divmod(number - 2, jnp.maximum(between, 1))
        few = places[order] <= some
        return jnp.where(number < 2, number == 1, few)

    found = worth(stay, 2 + samples * between)
    shape = (len(found), samples)
    none, all_ = (jnp.broadcast_to(found[:, i, None, None], (*shape, 1)) for i in (0, 1))
    grown = jnp.concatenate([none, found[:, 2:].reshape(*shape, between), all_], -1)
    steps = grown[..., 1:] - grown[..., :-1]
    added = jnp.take_along_axis(steps, jnp.broadcast_to(places[None], steps.shape), -1)
    return added.mean(1)
