"""Ablation-CAM: a layer's channels, weighted by what the class loses without each of them."""

import jax
import jax.numpy as jnp

from jaxattr import scores
from jaxattr.contract import attribution, check_positive, where_finite
from jaxattr.facts import method
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate
from jaxattr.methods.layers import drawn
from jaxattr.scores import Score
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(
    cost="1 forward to the layer, 1 from it for each of its channels",
    family="class activation maps",
    spatial=True,
)
def ablation_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    score: Score = scores.logit,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Attribution:
    """Weight a layer's channels by how much the score falls when each of them is zero.

        w_c = s - s without A_c,    a = max( sum_c w_c A_c, 0 )

    resized bilinearly to the image. The paper divides the weights by `s`; of a positive score that
    is one factor for the whole map, and it is left out. No gradient is taken, so that saturated
    networks are no trouble. Laws: where one affine layer follows, `w_c` is the sum of `A_c` times
    its gradient; the same for every `chunk`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        score: `s`, of `jaxattr.scores`.
        chunk: how many channels of each image are tried at once, at most; memory grows with it, not
            with the number of channels.
        progress: called with the number of channels tried, up to a hundred times.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: one forward pass, and one from the
        layer for each of its channels.

    Raises:
        ValueError: as `grad_cam` does, or if `chunk` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2)) @ jnp.array([[2.0, -1.0]])
        >>> a = ablation_cam(f, layer="features")(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> a.max().item()
        8.0

    Reference:
        Desai and Ramaswamy, Ablation-CAM, WACV 2020.

    Differs from pytorch-grad-cam, which sets the channels of a layer with negative values to -1e7
    instead of 0, and flips the map where the score is negative.
    """
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        halves = split(f, x, layer=layer, grid=grid)
        value = halves.before(x)
        axis = halves.channel_axis % value.ndim
        channels = value.shape[axis]

        def without(number: Array) -> Array:
            kept = jnp.arange(channels) != number
            kept = kept.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
            return halves.after(jnp.where(kept, value, 0), x)

        found = evaluate(
            jax.vmap(without, out_axes=1),
            jnp.arange(channels + 1),  # the last number is the layer as it is
            lambda logits, _: score(logits, target),
            chunk=chunk,
            progress=progress,
        )
        weights = (found[:, -1:] - found[:, :-1]).astype(value.dtype)
        maps = drawn(weights[:, None, None] * halves.channels_last(value), x)
        return where_finite(maps, found[:, -1:])

    return attribution(f, explain, differentiates=False)
