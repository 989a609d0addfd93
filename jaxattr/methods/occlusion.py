"""Occlusion: how much hiding a window of the image lowers the score."""

import jax.numpy as jnp
import numpy as np

from jaxattr import scores
from jaxattr.contract import attribution, check_positive, resolve_baseline
from jaxattr.facts import method
from jaxattr.image.linear import separable
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.scores import Score
from jaxattr.types import Array, Attribution, Baseline, Fun


@method(cost="1 forward for each window", family="perturbations", spatial=True)
def occlusion(
    f: Fun,
    *,
    window: int | tuple[int, int] | None = None,
    stride: int | tuple[int, int] | None = None,
    baseline: Baseline = 0.0,
    score: Score = scores.logit,
    chunk: int = 2,
    progress: Progress | None = None,
) -> Attribution:
    """Slide a window over the image and measure how much hiding what it covers lowers the score.

        d_k = s(x) - s(x with x' in window k),
        a_p = mean of d_k over the windows k that cover pixel p

    Windows begin at every `stride`-th pixel until the last border is reached; the last ones are cut
    there. Laws: for `f` linear in the image and a window of one pixel it is `input_x_gradient`,
    summed over channels; the same for every `chunk`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        window: sides in pixels, one number or `(height, width)`; by default an eighth of the
            image's, rounded up.
        stride: from one window to the next in pixels, one number or `(down, across)`, at most the
            window's side; by default half of it, rounded up.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.
        score: `s`, of `jaxattr.scores`. The paper looks at the probability.
        chunk: how many windows are evaluated at once, at most; memory grows with it, not with the
            number of windows. A CPU is fastest with one or two, an accelerator with many.
        progress: called with the number of windows done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in units of the score. Cost: a forward pass for
        every window, and one more.

    Raises:
        ValueError: if the window is larger than the image, or the stride than the window.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.sum((1, 2, 3))[:, None]
        >>> a = occlusion(f, window=1, stride=1)
        >>> a(jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.array([0])).ravel()
        Array([0., 1., 2., 3.], dtype=float32)

    Reference:
        Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
    """
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        size = x.shape[1:3]
        sides = _pair("window", window, (-(-size[0] // 8), -(-size[1] // 8)))
        steps = _pair("stride", stride, (-(-sides[0] // 2), -(-sides[1] // 2)))
        rows, columns = (_covered(*axis) for axis in zip(size, sides, steps, strict=True))
        count = len(rows) * len(columns)
        hidden = resolve_baseline(baseline, x)

        def variant(number: Array) -> Array:
            down, across = jnp.asarray(rows), jnp.asarray(columns)
            i, j = jnp.divmod(number, len(columns))
            inside = down[i][:, None] & across[j][None] & (number < count)
            return jnp.where(inside[None, ..., None], hidden, x)

        # the last number is the image as it is
        read = lambda logits, number: score(logits, target)
        found = evaluate_variants(
            f, variant, jnp.arange(count + 1), read, chunk=chunk, progress=progress
        )
        drops = (found[:, count:] - found[:, :count]).reshape(-1, len(rows), len(columns))
        down, across = ((covers / covers.sum(0)).T for covers in (rows, columns))
        return separable(drops, down, across)[..., None].astype(x.dtype)

    return attribution(f, explain, differentiates=False)


def _pair(name: str, value: int | tuple[int, int] | None, default: tuple[int, int]) -> np.ndarray:
    pair = np.asarray(default if value is None else value)
    if pair.shape not in ((), (2,)):
        raise ValueError(f"{name} is {value}; expected one number of pixels, or two")
    pair = np.broadcast_to(pair, 2)
    for side in pair:
        check_positive(name, side)
    return pair


def _covered(pixels: int, side: int, step: int) -> np.ndarray:
    """Mark, for each window along an axis, the pixels it covers: `(windows, pixels)`."""
    if side > pixels:
        raise ValueError(f"window is {side} pixels long; the image has {pixels}")
    if step > side:
        raise ValueError(f"stride is {step}, which leaves out pixels between windows of {side}")
    starts = np.arange(-(-(pixels - side) // step) + 1)[:, None] * step
    return (starts <= np.arange(pixels)) & (np.arange(pixels) < starts + side)
