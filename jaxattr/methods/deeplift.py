"""DeepLIFT: how a change from a baseline runs through the network."""

from jaxattr.contract import attribution, class_gradient, one_hot, resolve_baseline
from jaxattr.facts import method
from jaxattr.portable import portable
from jaxattr.rules import rescale
from jaxattr.rules.propagation import Relevance, cotangents, named
from jaxattr.rules.rescale import rescaled
from jaxattr.types import Array, Attribution, Baseline, Explanation, Fun


@portable
def deeplift_details(f: Fun, *, baseline: Baseline = 0.0) -> Explanation[Relevance]:
    """Return contributions to the change of the logit at the image and at every layer.

    At the output `h` of an operation they are `(h - h') * m_h`, as `deeplift` has them. Law: those
    of any layer that nothing bypasses sum to the change of the logit.

    Args:
        f: as for `deeplift`.
        baseline: as for `deeplift`.

    Returns:
        `(x, target) -> Relevance(attribution, layers)`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x.reshape(1, 2) @ jnp.ones((2, 1)) - 1)
        >>> found = deeplift_details(f)(jnp.full((1, 1, 2, 1), 2.0), jnp.array([0]))
        >>> {name: a.item() for name, a in found.layers.items()}
        {'relu': 3.0, 'dot_general': 3.0}
    """

    def explain(x: Array, target: Array, key: object) -> Relevance:
        start = resolve_baseline(baseline, x)
        traced = rescale.read(f, x)
        chosen = lambda logits: one_hot(target, logits)
        m, found = cotangents(traced.scope, rescale.rules(traced, start), x, chosen)
        changed = rescale.changes(traced, start, x)
        layers = {position: found[position] * change for position, change in changed.items()}
        return Relevance((x - start) * m, named(traced.scope, layers))

    return attribution(f, explain, has_rules=True)


@method(cost="2 forward, 1 backward", family="relevance", details=deeplift_details)
def deeplift(f: Fun, *, baseline: Baseline = 0.0) -> Attribution:
    """Attribute the change of the logit from a baseline by the Rescale rule.

    Derivatives are replaced by multipliers, which account for the whole way from the baseline `x'`
    and chain likewise. At an activation with input `z`

        m_z = m_out (act(z) - act(z')) / (z - z')      (eq. 15)

    its slope where the two cannot be told apart; then

        a = (x - x') * m_x

    Law (completeness): `a` sums to `f(x)[t] - f(x')[t]`, to rounding, whatever the network is made
    of; a `stop_gradient` stops nothing here. Affine layers and sums have their own derivative. A
    max-pool gives its change to the winner at `x` if it grew, and else to the winner at `x'`. A
    product of two values that depend on `x`, as in squeeze-and-excitation, attention or a
    normalization, is split by `ab - a'b' = (b + b')/2 (a - a') + (a + a')/2 (b - b')`. A quotient,
    however a norm writes it, is split as `a = y b` is, `y - y' = (2 (a - a') - (y + y') (b - b')) /
    (b + b')`, which nothing large cancels in where the baseline has no variance.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        baseline: `x'`, a number, an array that broadcasts to `x`, or a function of images.

    Returns:
        An attribution of the shape of `x`, in logits. Cost: two forward passes, one backward.

    Raises:
        UnsupportedOperation: if `f` chooses between values by a condition that depends on `x`, or
            contains an operation of unknown kind, such as a running product, or an
            activation inside a loop of unknown length.
        ValueError: if the baseline does not broadcast to the shape of `x`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x.sum((1, 2)) - 1)
        >>> deeplift(f)(jnp.full((1, 1, 2, 1), 2.0), jnp.array([0])).ravel()
        Array([1.5, 1.5], dtype=float32)

    Reference:
        Shrikumar, Greenside and Kundaje, Learning important features through propagating activation
        differences, ICML 2017.

    Differs from Captum, where a ReLU that feeds a max-pool undoes the rule for the pool,
    overlapping windows overwrite each other, products keep their derivative and functions that are
    no module, the plain gradient: the sum is then off by a tenth, or all, of the change.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        start = resolve_baseline(baseline, x)
        return (x - start) * class_gradient(rescaled(f, start), x, target)

    return attribution(f, explain, has_rules=True)
