"""Images of several classes in a grid, and classifiers of which each logit sees one cell alone."""

import jax
import jax.numpy as jnp

from jaxattr.contract import check_images, check_positive
from jaxattr.tracing.taps import split
from jaxattr.types import Array, Fun, Layer


def image_grids(x: Array, *, cells: int = 2) -> Array:
    """Put images side by side, `cells` times `cells` of them in reading order.

    The paper takes images of different classes, each of which the model alone recognizes with a
    probability above .99 or so. A model for larger images pools its features over all positions.

    Args:
        x: `(B cells^2, H, W, C)`.
        cells: of a side.

    Returns:
        `(B, cells H, cells W, C)`.

    Raises:
        ValueError: if the number of images is no multiple of `cells^2`.

    Example:
        >>> import jax.numpy as jnp
        >>> image_grids(jnp.arange(4.0).reshape(4, 1, 1, 1))[0, ..., 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]

    Reference:
        Boehle, Fritz and Schiele, Convolutional dynamic alignment networks, CVPR 2021.
    """
    x = jnp.asarray(x)
    check_images(x)
    check_positive("cells", cells)
    n, height, width, channels = x.shape
    if n % cells**2:
        raise ValueError(f"x has {n} images; a grid of {cells} x {cells} needs {cells**2} each")
    parts = x.reshape(-1, cells, cells, height, width, channels).swapaxes(2, 3)
    return parts.reshape(-1, cells * height, cells * width, channels)


def cell_images(x: Array, *, cells: int = 2) -> Array:
    """Take grids apart again: the inverse of `image_grids`.

    Args:
        x: images or values `(B, H, W, C)`.
        cells: of a side.

    Returns:
        `(B cells^2, H / cells, W / cells, C)`.

    Raises:
        ValueError: if `cells` does not divide height and width.
    """
    check_positive("cells", cells)
    batch, height, width, channels = x.shape
    if height % cells or width % cells:
        raise ValueError(f"{cells} cells a side do not divide {height} x {width}")
    height, width = height // cells, width // cells
    parts = x.reshape(batch, cells, height, cells, width, channels).swapaxes(2, 3)
    return parts.reshape(-1, height, width, channels)


def difull(f: Fun, *, cells: int = 2) -> Fun:
    """Make a classifier of grids of which each logit depends on one cell alone (DiFull).

        g(x)[i K + k] = f(cell_i(x))[k]

    Whatever a method attributes to another cell, `grid_pointing_game` shows as its fault. Laws: the
    gradient of a logit is 0 outside its cell; of `image_grids` the logits are those of the images.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`.
        cells: of a side.

    Returns:
        A function of grids `(B, cells H, cells W, C)` to logits `(B, cells^2 K)`, first all of the
        first cell: explain the class `i K + k` of cell `i`.

    Raises:
        ValueError: if `cells` does not divide the grids.

    Example:
        >>> import jax.numpy as jnp
        >>> f = lambda x: x.sum((1, 2))
        >>> difull(f)(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
        [[0.0, 1.0, 2.0, 3.0]]

    Reference:
        Rao, Boehle and Schiele, Towards better understanding attribution methods, CVPR 2022,
        section 3.1.
    """
    return lambda x: f(cell_images(x, cells=cells)).reshape(len(x), -1)


def dipart(f: Fun, *, cells: int = 2, layer: Layer | None = None) -> Fun:
    """Make a classifier of grids of which each head sees the features of one cell alone (DiPart).

        g(x)[i K + k] = head(cell_i(features(x)))[k]

    Features near a cell's border depend on its neighbors, as far as their receptive field goes.
    Law: where no receptive field crosses a border, it is `difull`.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, of convolutions up to `layer`.
        cells: of a side.
        layer: what is cut into cells; by default the last layer with a spatial extent.

    Returns:
        A function of grids to logits `(B, cells^2 K)`, as `difull` has them.

    Raises:
        ValueError: if `cells` does not divide the grids, the layer of a grid does not consist of
            those of its cells, or the layer is unknown.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> @jax.named_scope("features")
        ... def features(x):
        ...     return jax.nn.relu(x - 1)
        >>> f = lambda x: features(x).sum((1, 2))
        >>> dipart(f, layer="features")(jnp.arange(4.0).reshape(1, 2, 2, 1)).tolist()
        [[0.0, 0.0, 1.0, 2.0]]

    Reference:
        Rao, Boehle and Schiele, Towards better understanding attribution methods, CVPR 2022,
        section 3.1.
    """

    def logits(x: Array) -> Array:
        parts = cell_images(x, cells=cells)
        value = split(f, x, layer=layer).before(x)
        alone = split(f, parts, layer=layer)
        expected = jax.eval_shape(alone.before, parts).shape
        rows, columns = expected[1:3] if len(expected) == 4 else (0, 0)
        if value.shape != (len(x), cells * rows, cells * columns, *expected[3:]):
            raise ValueError(
                f"the layer has shape {value.shape} for grids and {expected} for their cells; "
                f"expected {cells} times its height and width, channels last: name another layer"
            )
        return alone.after(cell_images(value, cells=cells), parts).reshape(len(x), -1)

    return logits
