"""Score-CAM: what a layer's channels are worth, by what the model sees through each of them."""

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, check_positive
from jaxattr.facts import method
from jaxattr.image.maps import unit_range
from jaxattr.image.resize import Resize, resize
from jaxattr.loops.progress import Progress
from jaxattr.loops.variants import evaluate_variants
from jaxattr.scores import Score, logit
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Attribution, Fun, Grid, Layer


@method(
    cost="1 forward to the layer, 1 for each of its channels",
    family="class activation maps",
    spatial=True,
)
def score_cam(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    score: Score = logit,
    enlarge: Resize = resize,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Attribution:
    """Weight a layer's channels by the score of the image seen through each of them.

        H_c = A_c enlarged to the image and scaled to [0, 1]
        w = softmax over c of F(x * H_c),    a = max( sum_c w_c A_c, 0 )      (eqs. 5 to 8)

    resized to the image. The score of a black image, which the paper subtracts, is the same for
    every channel and falls out of the softmax. Laws: equals the definition, channel by channel;
    each image's weights come from its own scores.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        layer: as for `grad_cam`.
        grid: rows and columns of the layer's tokens, where the function does not tell.
        score: `F`, of logits and classes; `jaxattr.scores.logit` in the paper.
        enlarge: how channels and the map are resized.
        chunk: how many channels of each image are tried at once, at most; memory grows with it, not
            with the number of channels.
        progress: called with the number of channels tried, up to a hundred times.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: a forward pass to the layer, and
        one for each of its channels.

    Raises:
        ValueError: as `grad_cam` does, or if `chunk` is not positive.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).sum((1, 2))
        >>> x = jnp.array([[[[3.0, 0.0], [0.0, 3.0]]]])
        >>> score_cam(f, layer="features")(x, jnp.array([0])).ravel().round(2)
        Array([2.86, 0.14], dtype=float32)

    Reference:
        Wang et al., Score-CAM, CVPR workshops 2020.

    Differs from pytorch-grad-cam in enlarging without aligned corners, which is
    `jaxattr.maps.resize_aligned`'s way, and in not rounding scores to float32.
    """
    check_positive("chunk", chunk)

    def explain(x: Array, target: Array, key: object) -> Array:
        size = (x.shape[1], x.shape[2])
        halves = split(f, x, layer=layer, grid=grid)
        value = halves.channels_last(halves.before(x))

        def seen(channel: Array) -> Array:
            return x * unit_range(enlarge(value[..., channel], size))[..., None]

        numbers = jnp.arange(value.shape[-1])
        read = lambda logits, _: score(logits, target)
        scores = evaluate_variants(f, seen, numbers, read, chunk=chunk, progress=progress)
        weights = jax.nn.softmax(scores, -1).astype(x.dtype)
        cam = (weights[:, None, None] * value).sum(-1, keepdims=True)
        return enlarge(jnp.maximum(cam, 0), size)

    return attribution(f, explain, differentiates=False)
