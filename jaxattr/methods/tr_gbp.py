"""TR-GBP, theoretical refinements of guided backpropagation: to the biases too, class by class."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxattr.contract import (
    attribution,
    attribution_of,
    one_by_one,
    one_hot,
    same_options,
    vary_like,
    where_finite,
)
from jaxattr.facts import method
from jaxattr.image.linear import multiply
from jaxattr.image.order import largest
from jaxattr.image.resize import resize, resized_sum
from jaxattr.portable import portable
from jaxattr.programs.interpret import Equation
from jaxattr.programs.primitives import Kind
from jaxattr.rules import gates
from jaxattr.tracing.local import Rule
from jaxattr.tracing.shifts import Shift, shifted
from jaxattr.types import Array, Attribution, Explanation, Fun


class Bias(NamedTuple):
    """What a convolution's bias says of each class.

    Attributes:
        map: `R^l`, at the resolution of the layer's input, `(B, 1 + top, h, w, 1)`.
        resized: the same, enlarged to the image, `(B, 1 + top, H, W, 1)`.
    """

    map: Array
    resized: Array


class Layers(NamedTuple):
    """The maps of TR-GBP, before the classes are compared.

    Attributes:
        attribution: the map of `tr_gbp`, `(B, H, W, 1)`.
        classes: the target, then the classes of the highest logits, `(B, 1 + top)`.
        input: `R^0`, guided backpropagation of each of these classes summed over the image's
            channels, `(B, 1 + top, H, W, 1)`.
        biases: for each convolution with a bias, by its module path, its `R^l`.
        rest: for each dense layer with a bias, and each activation with an offset, what it would
            add in all, `(B, 1 + top)`. It has no place in the map.
    """

    attribution: Array
    classes: Array
    input: Array
    biases: dict[str, Bias]
    rest: dict[str, Array]


def relative(maps: Array) -> Array:
    """Subtract from the first of `(B, 1 + top, ...)` the mean of the others, if there are any."""
    return maps[:, 0] - maps[:, 1:].mean(1) if maps.shape[1] > 1 else maps[:, 0]


@portable
def tr_gbp_details(f: Fun, *, top: int = 5) -> Explanation[Layers]:
    """Return the maps of every layer and class, by the options of `tr_gbp`.

    Returns:
        `(x, target) -> Layers(attribution, classes, input, biases, rest)`.
    """
    return _layers(f, gates.guided, top)


def _layers(f: Fun, activation: Rule, top: int) -> Explanation[Layers]:
    if top < 2:
        raise ValueError(f"top is {top}; expected at least 2 classes to compare")

    def one(image: Array, target: Array) -> Layers:
        x = image[None]
        network = shifted(f, x, activation)
        if not network.activations:
            raise ValueError("the function has no activation, so there is nothing to guide")
        spatial = {k: s for k, s in network.shifts.items() if _convolves(s)}
        ones = {k: jnp.ones((1, *_size(s)), x.dtype) for k, s in spatial.items()}
        wholes = {k: jnp.ones(1, x.dtype) for k in network.shifts if k not in spatial}

        def logits(x: Array, ones: dict[str, Array], wholes: dict[str, Array]) -> Array:
            spread = {k: _spread(spatial[k], one) for k, one in ones.items()}
            for k, whole in wholes.items():
                rank = len(network.shifts[k].site.shape)
                spread[k] = lax.expand_dims(whole, range(1, rank)) if rank else whole.sum()
            return network.output(x, spread)

        y, pull = jax.vjp(logits, x, *vary_like((ones, wholes), x))
        # The only class of a binary model has nothing to be compared with.
        best = largest(y, top if y.shape[-1] > 1 else 0)
        classes = jnp.concatenate([target[None, None], best.astype(target.dtype)], 1)
        gradient, maps, rest = jax.vmap(lambda k: pull(one_hot(k, y)), 1, 1)(classes)
        image = gradient.sum(-1, keepdims=True)
        biases = {k: Bias(a[..., None], _enlarged(a, x)) for k, a in maps.items()}
        size, enlarge = (x.shape[1], x.shape[2]), lambda a, size: _enlarged(a, x)
        whole = image + (resized_sum(maps.values(), size, enlarge) if maps else 0)
        found = where_finite((relative(whole), image, biases, rest), y)
        return jax.tree.map(lambda a: a[0], Layers(found[0], classes, *found[1:]))

    explain = lambda x, target, key: one_by_one(f, one, x, target)
    return attribution(f, explain, has_rules=True)


@method(cost="1 forward, top + 1 backward", family="biases", spatial=True, details=tr_gbp_details)
@same_options(tr_gbp_details)
def tr_gbp(f: Fun, **options: Any) -> Attribution:
    """Attribute by guided backpropagation to image and biases, relative to the top classes.

    The paper's name is theoretical refinements of guided backpropagation.
    `R^0_k` is guided backpropagation of class `k` to the image, summed over its channels. The
    bias of a convolution `l`, with the BatchNorm that follows folded in, is written as a
    convolution of an image of ones with one channel, whose kernel is `b_c / n_j` everywhere (`n_j`
    of its entries lie inside the image at position `j`, so that the sum is `b_c`); `R^l_k` is
    guided backpropagation with respect to these ones, a map at the resolution of the layer's input.
    Then

        R_k = S_k - mean over the top classes i of S_i      (eq. 10)
        S_k = R^0_k + sum_l enlarge(R^l_k)                  (eq. 9)

    bilinearly. The top classes are those of the highest logits, the target among them if it is one.
    Laws: for plain gradients, `f(x)[k]` is `<grad, x>` and the sum of all `R^l_k` and of what dense
    layers add (see `tr_gbp_details`); over the top classes the maps sum to zero; equals a dense
    reference.

    Args:
        f: images `(B, H, W, C)` to logits `(B, K)`, with at least one activation.
        top: the number of classes to compare with, 5 in the paper, or all if there are fewer. A
            model of one class compares with none: its map is `S_k`.

    Returns:
        An attribution of shape `(B, H, W, 1)`. Cost: one forward pass, and a backward pass for each
        top class and the target, all at once.

    Raises:
        UnsupportedOperation: if `f` contains an operation that the reader does not know.
        ValueError: if `f` contains no activation, or `top` is less than 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> f = lambda x: jax.nn.relu(x).reshape(1, 2)
        >>> x, target = jnp.ones((1, 1, 2, 1)), jnp.array([0])
        >>> tr_gbp(f)(x, target).ravel()
        Array([ 0.5, -0.5], dtype=float32)

    Reference:
        Towards predictable feature attribution: revisiting and improving guided backpropagation,
        under review at ICLR.

    The bias of a dense layer, or the offset of a ReLU6 or a SiLU, is one number for the whole map
    and is left out of it.
    """
    return attribution_of(tr_gbp_details(f, **options))


def _convolves(shift: Shift) -> bool:
    """Whether what adds something is a layer on an image; a dense or lone one has a 1x1 kernel."""
    return shift.site.kind is Kind.AFFINE and len(shift.site.shape) == 4 and shift.batched


def _size(shift: Shift) -> tuple[int, int]:
    """Return height and width of a layer's input."""
    if shift.layer.primitive != "conv_general_dilated":
        _, height, width = np.delete(shift.site.shape, shift.channel_axis)
        return int(height), int(width)
    image = shift.layer.input_avals[0]
    rows, columns = shift.layer.params["dimension_numbers"].lhs_spec[2:]
    return image.shape[rows], image.shape[columns]


def _spread(shift: Shift, ones: Array) -> Array:
    """Convolve `(B, h, w)` by a kernel of `1 / n_j`, and give it the rank of the layer's output."""
    if shift.layer.primitive == "conv_general_dilated":
        for axis, covers in enumerate(_covers(shift.layer), start=1):
            if not np.array_equal(covers, np.eye(len(covers))):
                ones = multiply(ones, covers, axis)
    return jnp.expand_dims(ones, shift.channel_axis)


def _covers(layer: Equation) -> list[np.ndarray]:
    """Return for rows and for columns which inputs an output sees, `(out, in)`, as shares of one.

    The window is a product of an interval of rows and one of columns, and so is `n_j`.
    """
    params = layer.params
    avals = (*layer.input_avals, *layer.output_avals)
    numbers = params["dimension_numbers"]
    specs = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    found = []
    for i in range(2):
        inputs, taps, outputs = (
            aval.shape[spec[2 + i]] for aval, spec in zip(avals, specs, strict=True)
        )
        starts = np.arange(outputs) * params["window_strides"][i] - params["padding"][i][0]
        at = starts[:, None] + np.arange(taps) * params["rhs_dilation"][i]
        places = np.arange(inputs) * params["lhs_dilation"][i]
        seen = (at[:, :, None] == places).sum(1)
        found.append(seen / np.maximum(seen.sum(1, keepdims=True), 1))
    return found


def _enlarged(maps: Array, x: Array) -> Array:
    """Resize `(B, n, h, w)` to the image, `(B, n, H, W, 1)`."""
    size = (x.shape[1], x.shape[2])
    return resize(maps.reshape(-1, *maps.shape[2:]), size).reshape(*maps.shape[:2], *size, 1)
