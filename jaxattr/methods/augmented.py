"""Any attribution, averaged over flips and sizes of the image; several, averaged by their ranks."""

from collections.abc import Callable, Sequence
from itertools import product

import jax.numpy as jnp

from jaxattr.contract import check_images
from jaxattr.facts import method
from jaxattr.image.maps import heatmap
from jaxattr.image.order import descending
from jaxattr.image.resize import Resize, resize
from jaxattr.portable import portable
from jaxattr.types import Array, Attribution, Explanation, Key


@method(cost="2 x scales x the method", family="noise", wraps=True)
def augmented(
    attribute: Attribution,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = True,
    enlarge: Resize = resize,
) -> Attribution:
    """Average an attribution over the image and its mirror image, in several sizes.

        a = mean over scales s and mirrors T of T^-1 S^-1 A(S T x)

    where `S` resizes by the factor `s`, `S^-1` back to the image's size, and `T` turns left to
    right or does nothing. Laws: without flips, at the scale 1 alone, it is the attribution; the map
    of the mirror image is the mirrored map.

    Args:
        attribute: any attribution; at other scales than 1, of a function of images of any size.
        scales: `s`, with the image's sizes rounded to whole pixels.
        flip: whether the mirror image counts too.
        enlarge: how images and maps are resized.

    Returns:
        An attribution of the shape that `attribute` gives.

    Raises:
        ValueError: if `scales` is empty or holds a number that is not positive.

    Example:
        >>> import jax.numpy as jnp, jaxattr
        >>> f = lambda x: x[:, 0, 0]  # sees the left pixel, or the right one in a mirror
        >>> a = augmented(jaxattr.saliency(f))
        >>> a(jnp.ones((1, 1, 2, 1)), jnp.array([0])).ravel()
        Array([0.5, 0.5], dtype=float32)

    Reference:
        Gildenblat and contributors, pytorch-grad-cam, 2021.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales is {tuple(scales)}; expected positive numbers, at least one")

    def attribute_augmented(x: Array, target: Array, *, key: Key | None = None) -> Array:
        x = jnp.asarray(x)
        check_images(x)
        size = (x.shape[1], x.shape[2])

        def one(scale: float, turn: Callable[[Array], Array]) -> Array:
            height, width = (max(1, round(scale * n)) for n in size)
            same = (height, width) == size
            image = turn(x if same else enlarge(x, (height, width)))
            a = attribute(image, target, key=key)
            return turn(a if same else enlarge(a, size))

        turns = (_as_it_is, _mirrored) if flip else (_as_it_is,)
        found = [one(*each) for each in product(scales, turns)]
        return sum(found[1:], start=found[0]) / len(found)

    return attribute_augmented


def _as_it_is(a: Array) -> Array:
    return a


def _mirrored(a: Array) -> Array:
    return jnp.flip(a, 2)


def ranks(a: Array) -> Array:
    """Rank the pixels of each map `(B, H, W)`: 0 for the least evidence, 1 for the most.

    >>> ranks(jnp.array([[[5.0, -1.0, 7.0]]])).tolist()
    [[[0.5, 0.0, 1.0]]]
    """
    last = max(a.shape[1] * a.shape[2] - 1, 1)
    return (last - descending(a)).astype(a.dtype) / last


@portable
def ensemble(
    attributes: Sequence[Attribution],
    *,
    scale: Callable[[Array], Array] = ranks,
    reduce: Callable[[Array], Array] = heatmap,
) -> Explanation[Array]:
    """Average the maps of several attributions, each by the ranks of its pixels.

        a = 1/n sum_m scale(reduce(A_m(x)))

    Ranks make maps of any unit comparable. Laws: of one attribution it is its ranks; multiplying an
    attribution by a positive number changes nothing.

    Args:
        attributes: any, one at least.
        scale: maps `(B, H, W)` to comparable ones, such as `jaxattr.maps.unit_range`.
        reduce: maps `(B, H, W, C)` to `(B, H, W)`.

    Returns:
        `(x, target, key=None)` to a map of shape `(B, H, W, 1)`, in [0, 1] where ranks are taken.

    Raises:
        ValueError: if there is no attribution.

    Example:
        >>> import jaxattr
        >>> f = lambda x: x.reshape(1, 3) @ jnp.array([[1.0], [3.0], [2.0]])
        >>> a = ensemble([jaxattr.saliency(f), jaxattr.input_x_gradient(f)])
        >>> a(jnp.array([5.0, 2.0, 2.0]).reshape(1, 1, 3, 1), jnp.array([0])).ravel()
        Array([0.25, 1.  , 0.25], dtype=float32)

    Reference:
        Rieger and Hansen, A simple defense against adversarial attacks on heatmap explanations,
        2020.
    """
    if not attributes:
        raise ValueError("there is no attribution to average")

    def attribute(x: Array, target: Array, *, key: Key | None = None) -> Array:
        maps = [scale(reduce(one(x, target, key=key))) for one in attributes]
        return (sum(maps[1:], start=maps[0]) / len(maps))[..., None]

    return attribute
