"""Feature ablation: how much hiding each part of the image lowers the score."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr import scores
from jaxattr.contract import attribution
from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.methods.coalitions import check_counts, game
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun


@method(cost="1 forward for each part", family="perturbations", spatial=True)
def feature_ablation(
    f: Fun,
    *,
    superpixels: ArrayLike | None = None,
    cells: int = 7,
    baseline: Baseline = 0.0,
    score: Score = scores.logit,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Measure how much hiding each superpixel of the image lowers the score.

        v_k = s(x) - s(x with x' in part k),    a_p = v_k / pixels of k, for pixel p of part k

    so that the map sums to the sum of the `v_k`. Laws: for `f` linear in the image and parts of one
    pixel it is `input_x_gradient`, summed over channels; for windows that do not overlap it is
    `occlusion` divided by their pixels; the same for every `chunk`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        superpixels: parts of the images, whole numbers from 0, `(B, H, W)`, or `(H, W)` for all
            images; by default the cells of a grid. `np.arange(H * W).reshape(H, W)` has pixels.
        cells: of the grid, a side.
        baseline: what hidden parts show, a number, an array that broadcasts to `x`, or a function
            of images.
        score: `s`, of `jaxattr.scores`.
        chunk: how many parts are evaluated at once, at most; memory for images grows with it,
            not with their number.
        progress: called with the number of parts done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in units of the score. Cost: a forward pass for
        every part, and one more.

    Raises:
        ValueError: if the superpixels do not fit the images.

    Example:
        >>> f = lambda x: x.sum((1, 2, 3))[:, None]
        >>> a = feature_ablation(f, superpixels=jnp.array([[0, 0, 1]]))
        >>> a(jnp.array([1.0, 3.0, 5.0]).reshape(1, 1, 3, 1), jnp.array([0])).ravel()
        Array([2., 2., 5.], dtype=float32)

    Reference:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    check_counts(cells=cells, chunk=chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
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
        players = jnp.arange(played.parts.number)
        # the last number is the image as it is
        found = played.worth(lambda number: players != number, len(players) + 1)
        return played.drawn(found[:, -1:] - found[:, :-1], x)

    return attribution(f, explain, differentiates=False)
