"""CAMERAS: class activation maps of the image at several resolutions, drawn as fine as it is."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxattr.contract import attribution, check_positive
from jaxattr.facts import method
from jaxattr.image.resize import resize, resize_cubic
from jaxattr.loops.moments import moments
from jaxattr.loops.progress import Progress
from jaxattr.methods.layers import at_layer
from jaxattr.types import Array, Attribution, Fun, Grid, Layer

SCALES = tuple(1 + 100 * k / 224 for k in range(8))
"""Of an image of 224 pixels 224, 324, ... 924, as the authors take them."""


@method(
    cost="at each scale 1 forward, 1 backward to the layer",
    family="class activation maps",
    spatial=True,
)
def cameras(
    f: Fun,
    *,
    layer: Layer | None = None,
    grid: Grid = None,
    scales: Sequence[float] = SCALES,
    chunk: int = 16,
    progress: Progress | None = None,
) -> Attribution:
    """Multiply a layer's values and gradients, each averaged over resolutions of the image.

        a = max( sum_c mean_s U(A_c(x_s)) * mean_s U(dy_t / dA_c (x_s)), 0 )

    `x_s` is the image enlarged bicubically by the factor `s`, `U` enlarges bilinearly to the size
    of the image. Where Grad-CAM averages a gradient over positions, here it keeps its place, and
    the resolutions fill the gaps of the layer's grid. Laws: at the scale 1 alone it is the layer's
    value times its gradient; equals the authors' arrays.

    Args:
        f: images of any size `(B, H, W, C)` to logits `(B, K)`, such as a network that ends in
            global average pooling.
        layer: as for `grad_cam`.
        grid: as for `grad_cam`, at the scale 1; rows and columns grow with the image.
        scales: `s`, with the image's sizes rounded to whole pixels.
        chunk: how many channels are enlarged at once; memory grows with it.
        progress: called with the number of channels done, up to a hundred times.

    Returns:
        A non-negative attribution of shape `(B, H, W, 1)`. Cost: one forward pass at each scale,
        and a backward pass to the layer; `sum_s s^2` times as many pixels as the image has.

    Raises:
        ValueError: as `grad_cam` does, if `scales` is empty or holds a number that is not positive,
            or if `f` cannot take an image of one of the sizes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x)
        >>> f = lambda x: features(x).mean((1, 2)) @ jnp.array([[2.0, -1.0]])
        >>> a = cameras(f, layer="features", scales=(1, 2))(jnp.ones((1, 2, 2, 1)), jnp.array([0]))
        >>> a.ravel()  # the mean of 2 / 4 and 2 / 16
        Array([0.3125, 0.3125, 0.3125, 0.3125], dtype=float32)

    Reference:
        Jalwana, Akhtar, Bennamoun and Mian, CAMERAS, CVPR 2021.

    Differs from the authors' code in leaving the map as it is; `jaxattr.maps.unit_range` scales it
    to [0, 1] as they do.
    """
    check_positive("chunk", chunk)
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales is {tuple(scales)}; expected positive numbers, at least one")

    def explain(x: Array, target: Array, key: object) -> Array:
        size = (x.shape[1], x.shape[2])

        def at(scale: float) -> tuple[Array, Array]:
            height, width = (max(1, round(scale * n)) for n in size)
            image = x if (height, width) == size else resize_cubic(x, (height, width))
            _check_size(f, image)
            tokens = grid and (height * grid[0] // size[0], width * grid[1] // size[1])
            value, gradient = at_layer(f, image, target, layer, tokens)
            return jnp.moveaxis(value, -1, 0), jnp.moveaxis(gradient, -1, 0)

        found = [at(scale) for scale in scales]

        def evidence(channel: list[tuple[Array, Array]]) -> Array:
            large = [(resize(v, size), resize(g, size)) for v, g in channel]
            values, gradients = (jnp.stack(a).mean(0) for a in zip(*large, strict=True))
            return values * gradients

        count = found[0][0].shape[0]
        mean = moments(evidence, found, jnp.ones(count), chunk=chunk, progress=progress).mean
        return jnp.maximum(count * mean, 0)[..., None]

    return attribution(f, explain)


def _check_size(f: Fun, image: Array) -> None:
    try:
        jax.eval_shape(f, image)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the function cannot take images of {image.shape[1]}x{image.shape[2]}: CAMERAS shows "
            "it the image at several sizes, so it must end in global average pooling or the like"
        ) from error
