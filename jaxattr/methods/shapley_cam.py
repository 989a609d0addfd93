"""ShapleyCAM: Grad-CAM to second order, the Shapley value of a layer's channels."""

import jax

from jaxattr import scores
from jaxattr.contract import attribution, where_finite
from jaxattr.facts import method
from jaxattr.methods.layers import drawn
from jaxattr.scores import Score
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(cost="1 forward, 2 backward to the layer", family="class activation maps", spatial=True)
def shapley_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    score: Score = scores.logit,
    relu: bool = True,
) -> Attribution:
    """Weight a layer's channels by their mean gradient, less half of how it changes with them.

        w_c = mean_ij ( ds / dA - H A / 2 )_ijc,    a = max( sum_c w_c A_c, 0 )

    resized bilinearly to the image. `H` is the Hessian of the score with respect to the layer: this
    is the Shapley value of the layer's units in the second-order expansion of the score, averaged
    over a channel. Laws: where the score is affine in the layer near `A`, as of the logits of a
    network of ReLUs and max-pools, it is `grad_cam`; of a quadratic score, where positions of a
    channel are equal, `a` at the layer's size sums to `s(A) - s(0)`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        score: `s`, of `jaxattr.scores`.
        relu: whether evidence against the class is dropped.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: a forward pass, and two backward passes down
        to the layer, the second one of the first.

    Raises:
        ValueError: as `grad_cam` does.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: (features(x) ** 2).sum((1, 2))
        >>> shapley_cam(f, layer="features")(jnp.full((1, 1, 2, 1), 3.0), jnp.array([0])).ravel()
        Array([9., 9.], dtype=float32)

    Reference:
        Cai, CAMs as Shapley value-based explainers, The Visual Computer 2025.
    """

    def explain(x: Array, target: Array, key: object) -> Array:
        halves = split(f, x, layer=layer, grid=grid)
        value = halves.before(x)

        def slopes(v: Array) -> tuple[Array, Array]:
            logits, pull = jax.vjp(lambda v: halves.after(v, x), v)
            (gradient,) = pull(jax.grad(lambda z: score(z, target).sum())(logits))
            return gradient, logits

        gradient, pull, logits = jax.vjp(slopes, value, has_aux=True)
        (curved,) = pull(value)  # the Hessian is symmetric
        weights = halves.channels_last(gradient - curved / 2).mean((1, 2), keepdims=True)
        return where_finite(drawn(weights * halves.channels_last(value), x, relu=relu), logits)

    return attribution(f, explain)
