"""LPR: a backward rule for every non-linearity, learned for each image."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxattr.contract import (
    at_any_size,
    attribution,
    attribution_of,
    class_gradient,
    repeated,
    resolve_baseline,
    same_options,
)
from jaxattr.facts import method
from jaxattr.image.filters import gaussian_blur
from jaxattr.image.maps import unit_range
from jaxattr.loops.optimization import minimize, parameters_like
from jaxattr.loops.progress import Progress
from jaxattr.portable import portable
from jaxattr.rules import gates
from jaxattr.scores import Score, logit
from jaxattr.tracing.factors import HELD, Hold
from jaxattr.tracing.freeze import freeze
from jaxattr.tracing.transform import lowered
from jaxattr.types import Array, Attribution, Baseline, Explanation, Fun, Init


class Fit(NamedTuple):
    """What LPR learns.

    Attributes:
        attribution: of the shape of `x`.
        parameters: for each activation, in the order of `jaxattr.sites`, its `theta`.
        losses: the loss before each step, `(B, steps)`.
    """

    attribution: Array
    parameters: tuple[Array, ...]
    losses: Array


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

    def soft(mask: Array) -> Array:
        return gaussian_blur(mask, smoothing)

    def explain(x: Array, target: Array, key: object) -> Fit:
        frozen = freeze(f, x, hold=hold)
        positions = [site.position for site in frozen.sites]
        if against is None:
            multipliers = [line.slope if gate else None for line in frozen.lines]
        else:
            multipliers = frozen.secants(resolve_baseline(against, x))
        fixed = dict(zip(positions, multipliers, strict=True))

        def attribute(theta: tuple[Array, ...]) -> Array:
            rule = gates.learned(dict(zip(positions, theta, strict=True)), fixed)
            return x * class_gradient(frozen.under({"activation": rule}), x, target)

        def loss(theta: tuple[Array, ...], step: Array) -> Array:
            a = unit_range(attribute(theta))
            mp = soft(1 - jax.nn.sigmoid(gamma * (a - alpha)))
            mn = soft(jax.nn.sigmoid(gamma * (a - beta)))
            axes = tuple(range(1, x.ndim))
            size = jnp.abs(1 - mp).mean(axes)
            if not sign_aware:
                return score(network(x * mp), target) - whole + lambda_ * size
            hidden = jnp.stack([x * mp, x * mn], 1).reshape(-1, *x.shape[1:])
            scores = score(at_any_size(network, hidden), repeated(target, 2)).reshape(-1, 2)
            return scores[:, 0] - scores[:, 1] + lambda_ * (size + jnp.abs(1 - mn).mean(axes))

        whole = score(network(x), target)
        begun = init(frozen, x, target) if callable(init) else init
        start = parameters_like(frozen, begun, per_channel=per_channel)
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
        smoothing: standard deviation, in pixels, of a Gaussian over the masks (eq. 6); 0 is none.
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
        ValueError: if `f` has no activation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([[2.0], [-3.0]])
        >>> f = lambda x: jax.nn.relu(x.reshape(-1, 2)) @ w
        >>> jnp.sign(lpr(f, steps=5)(jnp.ones((1, 1, 2, 1)), jnp.array([0]))).ravel()
        Array([ 1., -1.], dtype=float32)

    Reference:
        Yang et al., Learning propagation rules for attribution map generation, ECCV 2020.

    Differs from the paper where it is silent: `theta` starts at 1, masks are per pixel and channel,
    the sizes of the masks are means.
    """
    return attribution_of(lpr_details(f, **options))


def _resolved(baseline: Baseline | None) -> Baseline | None:
    """Return the baseline, of which True and False once said whether it is zero or none."""
    if not isinstance(baseline, bool):
        return baseline
    now = 0.0 if baseline else None
    message = f"baseline={baseline} of lpr is now baseline={now}"
    warnings.warn(message, DeprecationWarning, stacklevel=4)
    return now
