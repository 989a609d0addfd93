"""The contracts of the library, each stated once."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import jax
from jax.typing import ArrayLike

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
T_co = TypeVar("T_co", covariant=True)

Baseline: TypeAlias = ArrayLike | Callable[[Array], ArrayLike]
"""What an image is without its evidence.

A number, an array that broadcasts to the images `(B, H, W, C)`, or a function of them that explains
each as if it were alone, such as `jaxattr.metrics.blur`.
"""

Init: TypeAlias = ArrayLike | Callable[..., Any]
"""What an optimization begins with.

A number for all parameters, an array that broadcasts to them, or a function that returns them, of
what the method says.
"""

Grid: TypeAlias = tuple[int, int] | None
"""Rows and columns of a layer's tokens, None where the function tells how they lie."""

Layer: TypeAlias = str | int | object
"""A layer of a function.

Its name: a module path such as `"layer4"`, a `jax.named_scope` or a `checkpoint_name`; its position
in `jaxattr.sites`; or the module of Flax, Equinox or Keras itself, a part of the function's model.
"""


class Fun(Protocol):
    """A classifier: images `(B, H, W, C)` to logits `(B, K)`, any JAX callable.

    Parameters come by closure. When they are arguments of a surrounding `jax.jit`, none of them
    is baked into the program as a constant.
    """

    def __call__(self, x: Array, /) -> Array:
        """Return the logits of a batch of images."""
        ...


class Attribution(Protocol):
    """A map of evidence: images `(B, H, W, C)` and classes `(B,)` to signed scores.

    Pixel methods return the shape of `x`, spatial ones `(B, H, W, 1)`. Methods that draw random
    numbers need `key`; the others accept and ignore it.
    """

    def __call__(self, x: Array, target: Array, *, key: Key | None = None) -> Array:
        """Return the attribution maps of a batch of images."""
        ...


class Explanation(Protocol[T_co]):
    """An attribution with more to tell: the same arguments to a NamedTuple, the batch in front."""

    def __call__(self, x: Array, target: Array, *, key: Key | None = None) -> T_co:
        """Return all that a method finds for a batch of images."""
        ...
