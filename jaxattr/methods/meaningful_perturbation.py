"""Meaningful perturbation: the smallest part of an image that must be blurred to lose a class."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from jaxattr import scores
from jaxattr.contract import (
    attribution,
    attribution_of,
    broadcast,
    check_not_negative,
    check_positive,
    need_key,
    same_options,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.image.filters import ceiling_reach, gaussian_blur
from jaxattr.image.masks import blurred_grid
from jaxattr.loops.optimization import minimize, projected
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.portable import portable
from jaxattr.scores import Score
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Explanation, Fun, Init, Key

_RADII = 32
_SUPPRESSED = 0.01


class Fit(NamedTuple):
    """What meaningful perturbation learns.

    Attributes:
        attribution: `1 - m`, how much of each pixel is taken away, `(B, H, W, 1)`.
        grid: the parameters that `m` is made of, `(B, h, w)`, in [0, 1].
        losses: the terms of the loss before each step, each `(B, steps)`: `"score"`, `"size"` and
            `"variation"`, with their weights.
    """

    attribution: Array
    grid: Array
    losses: dict[str, Array]


@portable
def meaningful_perturbation_details(
    f: Fun,
    *,
    steps: int = 300,
    score: Score = scores.probability,
    blur_sigma: float = 10.0,
    spacing: int = 8,
    mask_sigma: float = 5.0,
    jitter: int = 4,
    noise: float = 0.0,
    lambda_1: float = 1e-4,
    lambda_2: float = 1e-2,
    beta: float = 3.0,
    init: Init | None = None,
    learning_rate: float = 0.1,
    optimizer: optax.GradientTransformation | None = None,
    progress: Progress | None = None,
) -> Explanation[Fit]:
    """Return all that `meaningful_perturbation` learns, by the same options.

    Returns:
        `(x, target, key=key) -> Fit(attribution, grid, losses)`.
    """
    check_positive("spacing", spacing)
    for name, value in (("blur_sigma", blur_sigma), ("mask_sigma", mask_sigma), ("noise", noise)):
        check_not_negative(name, value)
    if jitter < 0:
        raise ValueError(f"jitter is {jitter}; expected a number of pixels, 0 for none")
    if beta < 1:
        raise ValueError(f"beta is {beta}; expected at least 1")
    optimizer = projected(optimizer or optax.adam(learning_rate), 0, 1)
    network = lowered(f)

    def explain(x: Array, target: Array, key: Key | None) -> Fit:
        key = need_key(key, "meaningful_perturbation")
        size = x.shape[1], x.shape[2]
        sides = -(-size[0] // spacing), -(-size[1] // spacing)
        pair = jnp.stack([gaussian_blur(x, blur_sigma, reach=ceiling_reach), x])

        def drawn(grid: Array) -> Array:
            return blurred_grid(grid, size, spacing=spacing, sigma=mask_sigma)

        def seen(grid: Array, pair: Array) -> Array:
            mask = drawn(grid).astype(x.dtype).reshape(-1, *size, 1)
            return pair[0] + mask * (pair[1] - pair[0])

        def circles() -> Array:
            discs = jnp.asarray(1 - _discs(sides), at_least_float32(x).dtype)
            read = lambda logits, number: score(logits, target)
            variant = lambda number: seen(discs[number], pair)
            found = evaluate_variants(f, variant, jnp.arange(len(discs)), read, chunk=1)
            left, most = found - found[:, -1:], found[:, :1] - found[:, -1:]
            first = (left * jnp.sign(most) < _SUPPRESSED * jnp.abs(most)).argmax(1)
            chosen = jax.nn.one_hot(first, len(discs), dtype=discs.dtype)
            return jnp.einsum("bn,nhw->bhw", chosen, discs, precision=lax.Precision.HIGHEST)

        def terms(grid: Array, i: Array) -> dict[str, Array]:
            ours, theirs = jax.random.split(jax.random.fold_in(key, i))
            noisy = grid + noise * jax.random.normal(ours, sides, grid.dtype)[None]
            images = seen(jnp.clip(noisy, 0, 1), _moved(theirs, pair, jitter))
            return {
                "score": score(at_least_float32(network(images)), target),
                "size": lambda_1 * jnp.abs(1 - grid).sum((1, 2)),
                "variation": lambda_2 * _variation(grid, beta),
            }

        start = circles() if init is None else init(x, target) if callable(init) else init
        start = broadcast("init", start, at_least_float32(x), (len(x), *sides))
        grid, losses = minimize(terms, start, optimizer, steps, progress=progress)
        found = Fit((1 - drawn(grid))[..., None].astype(x.dtype), grid.astype(x.dtype), losses)
        return where_finite(found, network(x))

    return attribution(f, explain)


@method(
    cost="steps x (1 forward, 1 backward)",
    family="perturbations",
    random=True,
    spatial=True,
    details=meaningful_perturbation_details,
)
@same_options(meaningful_perturbation_details)
def meaningful_perturbation(f: Fun, **options: Any) -> Attribution:
    """Find the smallest smooth part of the image whose blurring loses the class.

    A mask `m` is 1 where the image is kept and 0 where it is blurred. It minimizes

        E_tau[ s( m x(. - tau) + (1 - m) b(. - tau) ) ]
            + lambda_1 sum_i |1 - p_i| + lambda_2 sum_i |grad p_i|^beta      (eq. 4)

    over a coarse grid of parameters `p` that is enlarged to `m`, by Adam, for each image. `s` is
    the score of the class, `b` the blurred image, `tau` a shift of both by some pixels, drawn at
    every step, the same for all images of a batch. The map is `1 - m`. Laws: without jitter and
    noise no draw is made; a classifier blind to the image leaves it whole; each image is
    independent of its batch.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        steps: of the optimizer.
        score: `s`, of `jaxattr.scores`.
        blur_sigma: standard deviation of the image's blur in pixels.
        spacing: pixels from one parameter to the next.
        mask_sigma: standard deviation in pixels of the Gaussian that smooths the enlarged grid.
        jitter: `tau` is uniform over this many pixels down and across; 0 is none.
        noise: standard deviation of what is added to the parameters at every step.
        lambda_1: weight of the mask's size.
        lambda_2: weight of its variation.
        beta: exponent of the length of the gradient.
        init: parameters at first: a number, an array that broadcasts to `(B, h, w)`, or a function
            of images and classes. By default
            they cut out the smallest disc in the middle of the image which, blurred, takes away
            99 % of what the largest does.
        learning_rate: of Adam.
        optimizer: any optax optimizer, in place of Adam. Parameters are kept in [0, 1].
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in [0, 1]. It needs a key. Cost: a forward and a
        backward pass a step, and 32 forward passes for the first mask.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jnp.zeros((1, 8, 8, 1)).at[0, 2:4, 2:4].set(9)
        >>> sum_ = lambda x: x[:, 2:4, 2:4].sum((1, 2))  # sees four pixels
        >>> f = lambda x: (sum_(x) - 20) * jnp.array([1, -1])
        >>> explain = meaningful_perturbation(
        ...     f, spacing=2, mask_sigma=0.5, jitter=0, lambda_1=0.02, lambda_2=0
        ... )
        >>> a = explain(x, jnp.array([0]), key=jax.random.key(0))
        >>> (a > 0.5).sum().item(), (a[0, 2:4, 2:4] > 0.5).all().item()
        (4, True)

    Reference:
        Fong and Vedaldi, Interpretable explanations of black boxes by meaningful perturbation,
        ICCV 2017.

    Numbers are those of the authors' code, which differs in what lies beyond the image when it is
    shifted (there, more of a larger image; here, its edges repeated) and makes discs of pixels.
    """
    return attribution_of(meaningful_perturbation_details(f, **options))


def _discs(sides: tuple[int, int]) -> np.ndarray:
    """Return discs in the middle of a grid, from none to all of it, `(radii, h, w)`."""
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in sides)
    distance = np.hypot(rows[:, None], columns)
    radii = np.linspace(0, distance.max() + 1, _RADII)
    return (distance < radii[:, None, None]).astype(float)


def _moved(key: Key, images: Array, jitter: int) -> Array:
    """Shift images `(n, B, H, W, C)` by a random number of pixels; edges are repeated."""
    if not jitter:
        return images
    before = jitter // 2
    around = (before, jitter - 1 - before)
    pad = lambda images: jnp.pad(images, ((0, 0), around, around, (0, 0)), mode="edge")
    wide = jax.vmap(pad, 1, 1)(images)  # `pad` slices every axis, even a batch over devices
    down, across = jax.random.randint(key, (2,), 0, jitter)
    return lax.dynamic_slice(wide, (0, 0, down, across, 0), images.shape)


def _variation(grid: Array, beta: float) -> Array:
    """Return `sum_i |grad p_i|^beta` of grids `(B, h, w)`, differences to the next row and column.

    Its derivative is 0 where the gradient is, whatever `beta`.
    """
    down = jnp.pad(jnp.diff(grid, axis=1), ((0, 0), (0, 1), (0, 0)))
    across = jnp.pad(jnp.diff(grid, axis=2), ((0, 0), (0, 0), (0, 1)))
    square = down**2 + across**2
    flat = square == 0
    return jnp.where(flat, 0, jnp.where(flat, 1, square) ** (beta / 2)).sum((1, 2))
