"""What an image is worth when some of its superpixels are hidden."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxattr.contract import check_positive, resolve_baseline
from jaxattr.image.superpixels import Superpixels, parted
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.lowering.varying import laid_out_like
from jaxattr.scores import Score
from jaxattr.types import Array, Baseline, Fun


class Game(NamedTuple):
    """A game of which the players are the superpixels of an image.

    Attributes:
        worth: from a function of a number to the players that stay, bool `(M,)`, and how many
            numbers there are, to the score of each image and number, `(B, n)`.
        parts: the superpixels; `M` is their number.
        there: which players an image has, `(B, M)`, 1 or 0.
    """

    worth: Callable[[Callable[[Array], Array], int], Array]
    parts: Superpixels
    there: Array

    def drawn(self, values: Array, x: Array) -> Array:
        """Share values of players, `(B, M)`, among their pixels: `(B, H, W, 1)`, as `x` is."""
        parts = self.parts._replace(labels=laid_out_like(self.parts.labels, x[..., 0]))
        known = jnp.isfinite(values).all(1, keepdims=True)  # of an image, all parts or none
        return parts.spread(jnp.where(known, values, jnp.nan))[..., None].astype(x.dtype)


def game(
    f: Fun,
    x: Array,
    target: Array,
    *,
    superpixels: ArrayLike | None,
    cells: int,
    baseline: Baseline,
    score: Score,
    chunk: int,
    progress: Progress | None,
) -> Game:
    """Let the superpixels of images play for the score of a class.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        x: the images.
        target: their classes.
        superpixels: as for `kernel_shap`, and so is what follows.
        cells: of the grid.
        baseline: what a superpixel that does not stay is replaced by.
        score: of the logits.
        chunk: how many coalitions are evaluated at once.
        progress: called with the number of them done.
    """
    parts = parted(superpixels, x.shape[:3], cells=cells)
    hidden = resolve_baseline(baseline, x)

    def worth(stay: Callable[[Array], Array], n: int) -> Array:
        def variant(number: Array) -> Array:
            return jnp.where(parts.painted(stay(number))[..., None], x, hidden)

        read = lambda logits, number: score(logits, target)
        return evaluate_variants(f, variant, jnp.arange(n), read, chunk=chunk, progress=progress)

    there = (parts.pixels() > 0).astype(at_least_float32(x).dtype)
    return Game(worth, parts, there)


def check_counts(**counts: int) -> None:
    """Raise `ValueError` unless all options that count something are at least 1."""
    for name, value in counts.items():
        check_positive(name, value)
