"""Extremal perturbation: the part of an image, of a given area, that excites a class most."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxattr import scores
from jaxattr.contract import (
    at_any_size,
    attribution,
    attribution_of,
    broadcast,
    check_not_negative,
    check_positive,
    repeated,
    same_options,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.image.filters import ceiling_reach, gaussian_blur, zero
from jaxattr.image.pyramids import Pyramid, blend, blur_pyramid
from jaxattr.image.smooth_masks import area_penalty, smooth_mask
from jaxattr.loops.optimization import minimize, projected
from jaxattr.loops.precision import at_least_float32
from jaxattr.loops.progress import Progress
from jaxattr.portable import portable
from jaxattr.scores import Score
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Explanation, Fun, Init

Game: TypeAlias = Callable[[Callable[[Array], Array], Array], Array]
"""`(measure, mask) -> reward`: `measure` takes a mask to the score of what it keeps."""


def preserve(measure: Callable[[Array], Array], mask: Array) -> Array:
    """Reward what keeps the score high."""
    return measure(mask)


def delete(measure: Callable[[Array], Array], mask: Array) -> Array:
    """Reward what leaves little of the score when it is taken away."""
    return -measure(1 - mask)


def dual(measure: Callable[[Array], Array], mask: Array) -> Array:
    """Reward both; twice the cost."""
    return measure(mask) - measure(1 - mask)


class Fit(NamedTuple):
    """What extremal perturbation learns.

    Attributes:
        attribution: the mean of the masks, smoothed, `(B, H, W, 1)`.
        masks: for each area its mask, `(B, areas, H, W)`, in [0, 1].
        losses: the terms of the loss before each step, each `(B, areas, steps)`: `"reward"`, whose
            sign is turned, and `"area"`, the penalty with its weight.
    """

    attribution: Array
    masks: Array
    losses: dict[str, Array]


@portable
def extremal_perturbation_details(
    f: Fun,
    *,
    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2),
    steps: int = 800,
    pyramid: Pyramid = blur_pyramid,
    game: Game = preserve,
    score: Score = scores.logit,
    spacing: int | None = None,
    sigma: float | None = None,
    flip: bool = True,
    smoothing: float = 0.09,
    penalty: float = 300.0,
    growth: float = 1.0035,
    init: Init = 1.0,
    learning_rate: float = 0.01,
    optimizer: optax.GradientTransformation | None = None,
    progress: Progress | None = None,
) -> Explanation[Fit]:
    """Return all that `extremal_perturbation` learns, by the same options.

    Returns:
        `(x, target) -> Fit(attribution, masks, losses)`.
    """
    if isinstance(areas, int | float):
        raise ValueError(f"areas is {areas}; expected several shares, as ({areas},)")
    areas = tuple(areas)
    if not areas or not all(0 < a < 1 for a in areas):
        raise ValueError(f"areas is {areas}; expected shares of the image between 0 and 1")
    if spacing is not None:
        check_positive("spacing", spacing)
    check_not_negative("smoothing", smoothing)
    if sigma is not None and not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}; expected a positive number of pixels")
    optimizer = projected(optimizer or averaged_descent(learning_rate), 0, 1)
    network = lowered(f)

    def explain(x: Array, target: Array, key: object) -> Fit:
        batch, height, width, _ = x.shape
        gap = spacing or -(-min(height, width) // 32)
        draw = partial(smooth_mask, size=(height, width), spacing=gap, sigma=sigma or 3 * gap)
        levels, targets = pyramid(x), repeated(target, len(areas))

        def terms(parameters: Array, i: Array) -> dict[str, Array]:
            masks, canvas = draw(parameters)
            turned = flip & (i % 2 == 0)

            def measure(masks: Array) -> Array:
                images = blend(levels, masks.astype(x.dtype)).reshape(-1, *x.shape[1:])
                seen = jnp.where(turned, images[:, :, ::-1], images)
                logits = at_any_size(network, seen)
                return score(at_least_float32(logits), targets).reshape(batch, -1)

            excess = area_penalty(canvas.reshape(batch, len(areas), -1), areas)
            return {
                "reward": -game(measure, masks),
                "area": penalty * growth ** i.astype(float) * excess,
            }

        shape = (batch, len(areas), -(-height // gap), -(-width // gap))
        begun = init(x, target) if callable(init) else init
        start = broadcast("init", begun, at_least_float32(x), shape)
        parameters, losses = minimize(terms, start, optimizer, steps, progress=progress)
        masks = draw(parameters)[0].astype(x.dtype)
        mean = masks.mean(1)[..., None]
        spread = smoothing * min(height, width)
        drawn = gaussian_blur(mean, spread, border=zero, reach=ceiling_reach)
        return where_finite(Fit(drawn, masks, losses), network(x))

    return attribution(f, explain)


@method(
    cost="steps x areas x (1 forward, 1 backward)",
    family="perturbations",
    spatial=True,
    details=extremal_perturbation_details,
)
@same_options(extremal_perturbation_details)
def extremal_perturbation(f: Fun, **options: Any) -> Attribution:
    """Find the part of the image, of a given area, that excites the class most.

    For each area `a`, a mask `m` of smooth shape (`jaxattr.image.smooth_masks`) chooses for a pixel
    how much of the image is kept: at 0 all is blurred away, at 1 nothing. The mask maximizes

        s(m * x) - penalty growth^i || vecsort(m) - r_a ||^2 / N      (eqs. 1 and 4)

    by gradient ascent over its parameters, for each image. `s` is the score of the class,
    `i` the step, and `r_a` has `(1 - a) N` zeros followed by ones, so that in the end `m` is 1 on
    a share `a` of the pixels and 0 elsewhere. The map is the mean of the masks of all areas,
    smoothed. Laws: equals TorchRay's curves of reward and penalty; each image is independent of its
    batch.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        areas: `a`, shares of the image; those of the authors' pointing game on VOC.
        steps: of the optimizer.
        pyramid: what an image becomes as it is taken away: `blur_pyramid` or `fade_pyramid` of
            `jaxattr.image.pyramids`, or any function from images to levels.
        game: `preserve`, `delete` or `dual` of `jaxattr.methods.extremal_perturbation`.
        score: `s`, of `jaxattr.scores`; `margin` is the authors' contrastive reward.
        spacing: pixels from one parameter to the next; by default a 32nd of the image's smaller
            side, 7 pixels of 224.
        sigma: width of a parameter's kernel in pixels; by default three times `spacing`.
        flip: whether every other step sees the image mirrored.
        smoothing: standard deviation of the Gaussian over the mean mask, as a share of the image's
            smaller side; 0 is none. 0.09 in the authors' pointing game.
        penalty: weight of the area's term at the first step.
        growth: by what it is multiplied at every step.
        init: the parameters at first: a number, an array that broadcasts to `(B, areas, h, w)`, or
            a function of images and classes.
        learning_rate: of gradient descent with momentum 0.9.
        optimizer: any optax optimizer, in place of that one. Parameters are kept in [0, 1].
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        An attribution of shape `(B, H, W, 1)`, in [0, 1]. Cost: for every step and area a forward
        and a backward pass, two with `dual`. All areas of all images are computed at once; see
        `jaxattr.batched` for fewer images at a time.

    Raises:
        ValueError: if an area is not between 0 and 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxattr.image.pyramids import fade_pyramid
        >>> x = jnp.zeros((1, 8, 8, 1)).at[0, 2:5, 2:5].set(1)
        >>> f = lambda x: x[:, 2:5, 2:5].sum((1, 2))  # sees nine pixels
        >>> explain = extremal_perturbation_details(
        ...     f, areas=[0.1], steps=300, pyramid=fade_pyramid, sigma=1, flip=False, penalty=10.0
        ... )
        >>> mask = explain(x, jnp.array([0])).masks[0, 0]
        >>> (mask > 0.9).sum().item(), (mask[2:5, 2:5] > 0.9).all().item()
        (9, True)

    Reference:
        Fong, Patrick and Vedaldi, Understanding deep networks via extremal perturbations and smooth
        masks, ICCV 2019.

    Differs from TorchRay in returning the masks after the last step, not before it, and in taking
    any `sigma`.
    """
    return attribution_of(extremal_perturbation_details(f, **options))


def averaged_descent(learning_rate: float, momentum: float = 0.9) -> optax.GradientTransformation:
    """Descend along the running mean of the gradients, which starts with the first of them."""

    def init(params: Any) -> tuple[Any, Array]:
        return jax.tree.map(jnp.zeros_like, params), jnp.zeros((), int)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        mean, count = state
        kept = jnp.where(count == 0, 0, momentum)
        mean = jax.tree.map(lambda m, u: (kept * m + (1 - kept) * u).astype(m.dtype), mean, updates)
        return jax.tree.map(lambda m: -learning_rate * m, mean), (mean, count + 1)

    return optax.GradientTransformation(init, update)
