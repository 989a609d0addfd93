"""LPR: a backward rule for every non-linearity, learned for each image."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxattr.contract import (
    at_any_size,
    attribution,
    attribution_of,
    repeated,
    resolve_baseline,
    same_options,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.image.filters import gaussian_blur, zero
from jaxattr.image.maps import unit_range
from jaxattr.loops.optimization import minimize
from jaxattr.loops.progress import Progress
from jaxattr.methods.plugins import Plugin, scale
from jaxattr.portable import portable
from jaxattr.rules import gates
from jaxattr.scores import Score, logit
from jaxattr.structures.factors import HELD, Hold
from jaxattr.tracing.freeze import Frozen, freeze
from jaxattr.tracing.local import Local
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Baseline, Explanation, Fun, Init

Masks: TypeAlias = Callable[[Array], tuple[Array, Array]]
"""From maps scaled to [0, 1] to the masks `Mp` and `Mn`, of the same shape."""


class Fit(NamedTuple):
    """What LPR learns.

    Attributes:
        attribution: of the shape of `x`.
        parameters: for each activation with a plugin, in the order of `jaxattr.sites`, its `theta`.
        losses: the loss before each step, `(B, steps)`.
    """

    attribution: Array
    parameters: tuple[Array, ...]
    losses: Array


def smoothed(sigma: float) -> Masks:
    """Make masks of a map's Gaussian mean, without a threshold (eq. 6).

        Mn(u) = sum_v S(u - v) A(v) / sum_v S(u - v),    Mp = 1 - Mn

    with `S(u) = exp(-|u|^2 / (2 sigma^2))`, over the pixels `v` of the image. The paper prints the
    mean itself as `Mp`, which by eq. 7 has to hide what is most attributed, as that of eq. 4 does.

    Args:
        sigma: in pixels.

    Example:
        >>> import jax.numpy as jnp
        >>> hide, keep = smoothed(1.0)(jnp.ones((1, 2, 2, 1)))
        >>> keep.ravel(), hide.ravel()
        (Array([1., 1., 1., 1.], dtype=float32), Array([0., 0., 0., 0.], dtype=float32))
    """

    def masks(a: Array) -> tuple[Array, Array]:
        total, weight = (gaussian_blur(m, sigma, border=zero) for m in (a, jnp.ones_like(a)))
        return 1 - total / weight, total / weight

    return masks


@portable
def lpr_details(
    f: Fun,
    *,
    steps: int = 50,
    learning_rate: float = 0.2,
    baseline: Baseline | None = 0.0,
    gate: bool = False,
    per_channel: bool = False,
    sign_aware: bool = True,
    score: Score = logit,
    alpha: float = 0.75,
    beta: float = 0.25,
    gamma: float = 10.0,
    lambda_: float = 0.1,
    smoothing: float = 0.0,
    masks: Masks | None = None,
    origin: Score = logit,
    between_convolutions: bool = False,
    plugin: Plugin = scale,
    init: Init = 1.0,
    hold: Hold = HELD,
    optimizer: optax.GradientTransformation | None = None,
    progress: Progress | None = None,
) -> Explanation[Fit]:
    """Return all that `lpr` learns, by the same options.

    Returns:
        `(x, target) -> Fit(attribution, parameters, losses)`.
    """
    against = _resolved(baseline)
    optimizer = optax.adam(learning_rate) if optimizer is None else optimizer
    network = lowered(f)

    def sharp(a: Array) -> tuple[Array, Array]:
        hide, keep = 1 - jax.nn.sigmoid(gamma * (a - alpha)), jax.nn.sigmoid(gamma * (a - beta))
        return gaussian_blur(hide, smoothing), gaussian_blur(keep, smoothing)

    def explain(x: Array, target: Array, key: object) -> Fit:
        frozen = freeze(f, x, hold=hold)
        positions = [site.position for site in frozen.sites]
        if against is None:
            multipliers = [line.slope if gate else None for line in frozen.lines]
        else:
            multipliers = frozen.secants(resolve_baseline(against, x))
        fixed = dict(zip(positions, multipliers, strict=True))
        learning = _between(frozen, x) if between_convolutions else positions

        def attribute(theta: tuple[Array, ...]) -> Array:
            given = dict(zip(learning, theta, strict=True))
            learned = gates.learned(given, fixed, plugin.apply)

            def rule(local: Local) -> Callable[..., Array]:
                return (learned if local.site.position in learning else gates.gradient)(local)

            logits, pull = jax.vjp(frozen.under({"activation": rule}), x)
            (gradient,) = pull(jax.grad(lambda y: origin(y, target).sum())(logits))
            return x * where_finite(gradient, logits)

        def loss(theta: tuple[Array, ...], step: Array) -> Array:
            a = unit_range(attribute(theta))
            mp, mn = (masks or sharp)(a)
            axes = tuple(range(1, x.ndim))
            size = jnp.abs(1 - mp).mean(axes)
            if not sign_aware:
                return score(network(x * mp), target) - whole + lambda_ * size
            hidden = jnp.stack([x * mp, x * mn], 1).reshape(-1, *x.shape[1:])
            scores = score(at_any_size(network, hidden), repeated(target, 2)).reshape(-1, 2)
            return scores[:, 0] - scores[:, 1] + lambda_ * (size + jnp.abs(1 - mn).mean(axes))

        whole = score(network(x), target)
        begun = init(frozen, x, target) if callable(init) else init
        every = plugin.start(frozen, begun, per_channel)
        start = tuple(theta for p, theta in zip(positions, every, strict=True) if p in learning)
        theta, losses = minimize(loss, start, optimizer, steps, progress=progress)
        return Fit(attribute(theta), theta, losses)

    return attribution(f, explain, has_rules=True)


@method(cost="steps x (2 forward, 4 backward)", family="learned", details=lpr_details)
@same_options(lpr_details)
def lpr(f: Fun, **options: Any) -> Attribution:
    """Attribute by learned propagation rules.

    At every activation the gradient goes back through a plugin with a parameter of its own,

        G(g) = tanh(theta * m * g)

    where `m` is the activation's multiplier `delta_out / delta_in` against the features of the
    baseline, an all-zero input, as in DeepLIFT (its slope where `|delta_in| < 1e-6`). The map is
    `A = g_x * x`. With `A` scaled to [0, 1] for each image, two masks

        Mp = 1 - sigmoid(gamma (A - alpha)),    Mn = sigmoid(gamma (A - beta))

    hide the most and the least attributed pixels, and `theta` minimizes

        [F(x Mp) - F(x)] + [F(x) - F(x Mn)] + lambda (mean|1 - Mp| + mean|1 - Mn|)

    by Adam, for each image. A step costs the masked images' forward and backward passes and the
    map's backward pass and its derivative, about six forward passes. Laws: the map is that of the
    rule `jaxattr.rules.gates.learned`; each image is independent of its batch.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, of affine layers, activations, pools, residual
            sums, gates, normalizations and attention, of which the factors are held at `x`.
        steps: of the optimizer; the paper's Table 2 is flat from about 34 on.
        learning_rate: of Adam, 0.2 in the paper.
        baseline: what `m` is measured against: a number, an array that broadcasts to `x`, or a
            function of images; None for no baseline.
        gate: without a baseline, whether `m` is the slope, as in a gradient, or 1.
        per_channel: one `theta` per channel (the paper's architecture *), or per element.
        sign_aware: whether the least attributed pixels are hidden too; otherwise the terms of `Mn`
            are left out.
        score: `F`, of `jaxattr.scores`: `logit` (the paper's Fig. 3, step 4) or `probability`
            (its eq. 7).
        alpha: threshold of `Mp`.
        beta: threshold of `Mn`.
        gamma: steepness of both.
        lambda_: weight of the masks' size.
        smoothing: standard deviation, in pixels, of a Gaussian over the masks; 0 is none.
        masks: what makes both masks in place of the sigmoids, whose options then have no effect:
            `smoothed(sigma)` of this module is the paper's eq. 6.
        origin: what is passed back from the logits: `logit`, one for the class and zero for the
            others (section 3.1), or `jaxattr.scores.log_probability`, the likelihood of section
            4.2, which hands down nearly nothing where the class is certain.
        between_convolutions: whether only activations after the first and before the last
            convolution have plugins (section 4.2), the others their gradient. By default all have
            one, so that a network with a hidden dense layer learns there too.
        plugin: what a gradient passes: `scale`, the above, or `convolution(key)` of
            `jaxattr.methods.plugins`, with which the paper found no meaningful map.
        init: `theta` at first: a number, an array that broadcasts to each activation's output, or
            a function of the frozen network, the images and the classes.
        hold: which factors are held at `x`, as for `jaxattr.freeze`.
        optimizer: any optax optimizer, in place of Adam.
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`. Memory grows with the activations of an image, not with
        the steps.

    Raises:
        UnsupportedOperation: if `f` has no piecewise-linear view (see `jaxattr.freeze`).
        ValueError: if `f` has no activation, or none between convolutions that was asked for.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([[2.0], [-3.0]])
        >>> f = lambda x: jax.nn.relu(x.reshape(-1, 2)) @ w
        >>> jnp.sign(lpr(f, steps=5)(jnp.ones((1, 1, 2, 1)), jnp.array([0]))).ravel()
        Array([ 1., -1.], dtype=float32)

    Reference:
        Yang et al., Learning propagation rules for attribution map generation, ECCV 2020.

    Differs from the paper in giving every activation a plugin (`between_convolutions=True` is its
    section 4.2), and where it is silent: `theta` starts at 1, masks are per pixel and channel, the
    sizes of the masks are means. Of the two starts that it names the logit's is the default.
    """
    return attribution_of(lpr_details(f, **options))


def _between(frozen: Frozen, x: Array) -> Sequence[int]:
    """Return the positions of the activations after the first and before the last convolution."""
    convolutions = []

    def note(local: Local) -> Callable[..., Array]:
        if any(e.primitive == "conv_general_dilated" for e in local.equations):
            convolutions.append(local.site.position)
        return local.value

    jax.eval_shape(frozen.under({"affine": note}), x)
    low, high = (min(convolutions), max(convolutions)) if convolutions else (0, 0)
    found = [s.position for s in frozen.sites if low < s.position < high]
    if not found:
        raise ValueError(
            f"none of the {len(frozen.sites)} activations stands between two of the "
            f"{len(convolutions)} convolutions: pass between_convolutions=False"
        )
    return found


def _resolved(baseline: Baseline | None) -> Baseline | None:
    """Return the baseline, of which True and False once said whether it is zero or none."""
    if not isinstance(baseline, bool):
        return baseline
    now = 0.0 if baseline else None
    message = f"baseline={baseline} of lpr is now baseline={now}"
    warnings.warn(message, DeprecationWarning, stacklevel=4)
    return now
