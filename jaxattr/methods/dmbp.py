"""DMBP: masks in the backward pass that part a network into evidence for, against, and neither."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from jaxattr.contract import attribution, attribution_of, one_hot, same_options, where_finite
from jaxattr.facts import method
from jaxattr.loops.optimization import minimize, parameters_like
from jaxattr.loops.progress import Progress
from jaxattr.portable import portable
from jaxattr.rules import gates
from jaxattr.structures.factors import HELD, Hold
from jaxattr.tracing.freeze import Frozen, freeze
from jaxattr.tracing.local import Local
from jaxattr.types import Array, Attribution, Explanation, Fun, Init

Loss: TypeAlias = Callable[[Array, Array, Array], Array]
"""`(y, y_positive, y_negative) -> loss`, each of shape `(B,)`."""


def positive(y: Array, y_positive: Array, y_negative: Array) -> Array:
    """Maximize the positive part alone: `-y+` (Table 1)."""
    return -y_positive


def positive_negative(y: Array, y_positive: Array, y_negative: Array) -> Array:
    """Pull the two parts apart: `y- - y+` (Table 1)."""
    return y_negative - y_positive


def disentangling(y: Array, y_positive: Array, y_negative: Array) -> Array:
    """Pull the two parts apart and keep the nuisance `y~ = y - y+ - y-` small: `y- - y+ + |y~|`."""
    return y_negative - y_positive + jnp.abs(y - y_positive - y_negative)


class Decomposition(NamedTuple):
    """What DMBP finds.

    Attributes:
        attribution: `positive + negative`, of the shape of `x`.
        positive: evidence for the class, `grad_x F+ * x`.
        negative: evidence against it, `grad_x F- * x`.
        nuisance: what is left of `grad_x f * x`.
        masks: for each activation, in the order of `jaxattr.sites`, its mask in [0, 1].
        losses: the loss before each step, `(B, steps)`.
    """

    attribution: Array
    positive: Array
    negative: Array
    nuisance: Array
    masks: tuple[Array, ...]
    losses: Array


def guided(frozen: Frozen, x: Array, target: Array) -> tuple[Array, ...]:
    """Begin with guided backpropagation's masks: `theta = 2` where its gradient is positive, or -2.

    With the masks of all other layers fixed, `y+` is linear in those of one layer, and largest
    where they are 1 for a positive gradient and 0 for a negative one. Going down from the logit, a
    layer at a time, that is the rule of guided backpropagation. From there RMSProp needs about half
    the steps that it needs from even masks (`docs/learned.md`).
    """

    def score(taps: tuple[Array, ...]) -> Array:
        at = {site.position: tap for site, tap in zip(frozen.sites, taps, strict=True)}

        def tapped(local: Local) -> Callable[..., Array]:
            value = gates.guided(local)
            return lambda *operands: value(*operands) + at[local.site.position]

        logits = frozen.under({"activation": tapped})(x)
        return (logits * one_hot(target, logits)).sum()

    gradients = jax.grad(score)(tuple(jnp.zeros_like(line.slope) for line in frozen.lines))
    return tuple(jnp.where(g > 0, 2, -2).astype(g.dtype) for g in gradients)


def rmsprop(learning_rate: float, *, decay: float = 0.99) -> optax.GradientTransformation:
    """Return `optax.rmsprop`, with a finite derivative where a gradient has always been zero."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def moved(g: Array, square: Array) -> Array:
        known = square > 0
        root = jnp.where(known, jnp.sqrt(jnp.where(known, square, 1)), 0)
        return -learning_rate * (g / (root + 1e-8))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        state = jax.tree.map(lambda s, g: decay * s + (1 - decay) * g**2, state, updates)
        return jax.tree.map(moved, updates, state), state

    return optax.GradientTransformation(init, update)


@portable
def dmbp_details(
    f: Fun,
    *,
    steps: int = 200,
    learning_rate: float = 0.01,
    loss: Loss = disentangling,
    bias: bool = False,
    init: Init = 0.0,
    per_channel: bool = False,
    hold: Hold = HELD,
    knot_spacing: float | None = None,
    optimizer: optax.GradientTransformation | None = None,
    progress: Progress | None = None,
) -> Explanation[Decomposition]:
    """Return all that `dmbp` finds, by the same options.

    Returns:
        `(x, target) -> Decomposition`.
    """
    if optimizer is None:
        optimizer = rmsprop(learning_rate)

    def explain(x: Array, target: Array, key: object) -> Decomposition:
        frozen = freeze(f, x, hold=hold, knot_spacing=knot_spacing)

        def scores(x: Array, masks: tuple[Array, ...] | None, *, bias: bool) -> Array:
            logits = frozen.logits(x, masks, bias=bias)
            return (logits * one_hot(target, logits)).sum(-1)

        def both(x: Array, theta: tuple[Array, ...]) -> tuple[Array, Array]:
            kept, others = (tuple(jax.nn.sigmoid(s * t) for t in theta) for s in (1, -1))
            return scores(x, kept, bias=bias), scores(x, others, bias=bias)

        start = init(frozen, x, target) if callable(init) else init
        y = scores(x, None, bias=True)
        theta, losses = minimize(
            lambda theta, step: loss(y, *both(x, theta)),
            parameters_like(frozen, start, per_channel=per_channel),
            optimizer,
            steps,
            progress=progress,
        )
        masks = tuple(map(jax.nn.sigmoid, theta))

        def part(masks: tuple[Array, ...] | None) -> Array:
            return x * jax.grad(lambda x: scores(x, masks, bias=False).sum())(x)

        plus, minus, whole = part(masks), part(tuple(1 - m for m in masks)), part(None)
        rest = whole - plus - minus
        return where_finite(Decomposition(plus + minus, plus, minus, rest, masks, losses), y)

    return attribution(f, explain, has_rules=True)


@method(
    cost="steps x (2 forward, 2 backward)",
    family="learned",
    details=dmbp_details,
    parts=("positive", "negative"),
)
@same_options(dmbp_details)
def dmbp(f: Fun, **options: Any) -> Attribution:
    """Attribute by disentangled masked backpropagation.

    Around `x` a network of ReLUs is linear. A mask `s_l` in [0, 1] behind every activation `l`
    makes of it two others: `F+`, in whose backward pass the gradient that leaves activation `l` is
    multiplied by `s_l`, and `F-`, with `1 - s_l`. With

        y+ = <grad_x F+, x> (+ sum_l <grad_b_l F+, b_l>),    y- likewise,    y~ = y - y+ - y-

    and `y` the logit, the masks `s = sigmoid(theta)` minimize `loss` for each image, by default
    `y- - y+ + |y~|`, and

        a = (grad_x F+ + grad_x F-) * x

    No forward pass of `f` is needed: `y+` is a forward pass of the frozen network (see
    `jaxattr.freeze`) with the masks on its activations, so a step costs two such passes and their
    gradients, about four forward passes. Laws: equals the definition by masked backward passes and
    double differentiation; `y = y+ + y- + y~`; each image is independent of its batch.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, of affine layers, activations, pools, residual
            sums, gates, normalizations and attention. Smooth activations are taken by their tangent
            at `x`, factors at their value.
        steps: of the optimizer. The paper takes 200.
        learning_rate: of RMSProp, 0.01 in the paper.
        loss: `positive`, `positive_negative` or `disentangling` of `jaxattr.methods.dmbp`.
        bias: whether the bias terms count in `y+` and `y-`, as the paper's formula says. Without
            them the objective speaks of the image alone; read literally, it optimizes biases.
        init: `theta` at first, on which the paper is silent: a number, 0 for masks of one half, or
            a function of the frozen network, the images and the classes, such as `guided` of this
            module: the better start on one network, the worse on another (`docs/learned.md`).
        per_channel: one mask entry per channel instead of one per element.
        hold: which factors are held at `x`, as for `jaxattr.freeze`.
        knot_spacing: of the knots between which smooth activations are taken as straight, as the
            paper's conclusion proposes for sigmoid and tanh. By default they are taken by their
            tangents, which need no grid and leave the logit what it is.
        optimizer: any optax optimizer, in place of RMSProp (decay 0.99, eps 1e-8).
        progress: called with the number of steps done, up to a hundred times.

    Returns:
        An attribution of the shape of `x`. Memory grows with the activations of an image, not with
        the steps: about ten times the size of their outputs, 459 MiB for VGG-16 and 226 MiB for
        EfficientNet-Lite0 at 224x224 (`benchmarks/learned_memory.py`).

    Raises:
        UnsupportedOperation: if `f` has no piecewise-linear view (see `jaxattr.freeze`).
        ValueError: if `f` has no activation.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> w = jnp.array([[2.0], [-3.0]])
        >>> f = lambda x: jax.nn.relu(x.reshape(1, 2)) @ w
        >>> found = dmbp_details(f, steps=500)(jnp.ones((1, 1, 2, 1)), jnp.array([0]))
        >>> found.positive.ravel().round(), found.negative.ravel().round()
        (Array([ 2., -0.], dtype=float32), Array([ 0., -3.], dtype=float32))

    Reference:
        Ruiz et al., Generating attribution maps with disentangled masked backpropagation, ICCV
        2021.

    Differs from the paper in counting image terms only; `bias=True` is its formula to the letter.
    The code that the paper links could not be had.
    """
    return attribution_of(dmbp_details(f, **options))
