"""What the signature of a method does not say, stated beside its function."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from jaxattr.portable import portable
from jaxattr.types import Explanation

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

FAMILIES = (
    "gradients",
    "paths",
    "backward rules",
    "relevance",
    "class activation maps",
    "biases",
    "perturbations",
    "learned",
    "noise",
    "attention",
)
"""The families of the package's own methods, in the order in which they are listed."""


class Facts(NamedTuple):
    """The facts of a method.

    Attributes:
        cost: the passes through the network that one map takes.
        family: one of `FAMILIES`, or a name of your own.
        random: whether it draws random numbers, so that it needs a key.
        spatial: whether its maps have the shape `(B, H, W, 1)`, and not that of `x`.
        wraps: whether it is made of another attribution instead of a classifier.
        details: its sibling that returns all that the method finds, if there is one.
        parts: the fields of what `details` returns that deserve a panel of their own.
        attends: whether it is made for networks with attention.
        inner: whether `layer=` gives a map of that layer, and not of the image.
    """

    cost: str
    family: str
    random: bool = False
    spatial: bool = False
    wraps: bool = False
    details: Callable[..., Explanation[Any]] | None = None
    parts: tuple[str, ...] = ()
    attends: bool = False
    inner: bool = False


def method(
    *,
    cost: str,
    family: str,
    random: bool = False,
    spatial: bool = False,
    wraps: bool = False,
    details: Callable[..., Explanation[Any]] | None = None,
    parts: tuple[str, ...] = (),
    attends: bool = False,
    inner: bool = False,
) -> Callable[[FunctionT], FunctionT]:
    """State the facts of a method beside its function.

    The function gets the attribute `facts`, and what it returns can be pickled and copied if its
    arguments can (`portable`). Nothing is registered: the catalogue finds the public functions of
    `jaxattr` that have facts, and those that other packages name in the entry point group
    `jaxattr.methods`.

    Args:
        cost: as in `Facts`.
        family: as in `Facts`.
        random: as in `Facts`.
        spatial: as in `Facts`.
        wraps: as in `Facts`.
        details: as in `Facts`.
        parts: as in `Facts`.
        attends: as in `Facts`.
        inner: as in `Facts`.

    Returns:
        A decorator.

    Example:
        >>> import jax.numpy as jnp
        >>> @method(cost="none", family="controls")
        ... def brightness(f):
        ...     return lambda x, target, *, key=None: x
        >>> facts_of(brightness).cost, brightness(None)(jnp.ones(1), None).item()
        ('none', 1.0)
    """
    facts = Facts(cost, family, random, spatial, wraps, details, parts, attends, inner)

    def decorate(function: FunctionT) -> FunctionT:
        made = portable(function)
        made.facts = facts  # type: ignore[attr-defined]
        return made

    return decorate


def facts_of(function: object) -> Facts | None:
    """Return the facts of a method, or None of any other object."""
    facts = getattr(function, "facts", None)
    return facts if isinstance(facts, Facts) else None
