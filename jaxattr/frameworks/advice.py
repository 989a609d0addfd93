"""Find how to write a model of another framework as a function of images to logits."""

import traceback
from collections.abc import Callable
from itertools import product
from typing import Any

import jax

from jaxattr.frameworks.entering import entered

_CALLS: dict[str, Callable[..., Any]] = {
    "f(x)": lambda f, x: f(x),
    "jax.vmap(f)(x)": lambda f, x: jax.vmap(f)(x),
    "f(x.transpose(0, 3, 1, 2))": lambda f, x: f(x.transpose(0, 3, 1, 2)),
    "jax.vmap(f)(x.transpose(0, 3, 1, 2))": lambda f, x: jax.vmap(f)(x.transpose(0, 3, 1, 2)),
}
_LOGITS: dict[str, Callable[[Any], Any]] = {
    "": lambda y: y,
    ".logits": lambda y: y.logits,
    "['logits']": lambda y: y["logits"],
    "[0]": lambda y: y[0] if isinstance(y, tuple | list) else None,
}


def advice(f: Callable[..., Any], x: Any, error: Exception | None = None) -> str:
    """Return what to explain instead of a function that does not turn images into logits.

    Modules that take one image, channels first, and outputs that hold the logits beside other
    things, are tried out on shapes alone.

    Args:
        f: a function that fails on `x`, or returns something else.
        x: images `(B, H, W, C)`, or their shape and dtype.
        error: what it raised.

    Returns:
        The end of an error's sentence; empty if nothing helps.

    Example:
        >>> import jax.numpy as jnp
        >>> single = lambda image: jnp.ones((5, 3)) @ image.mean((1, 2))
        >>> advice(single, jnp.ones((2, 8, 8, 3)))
        '; explain `lambda x: jax.vmap(f)(x.transpose(0, 3, 1, 2))` instead of f'
    """
    for (call, run), (part, logits) in [*product(_CALLS.items(), _LOGITS.items())][1:]:
        try:
            y = jax.eval_shape(entered(lambda x, run=run, part=logits: part(run(f, x))), x)
        except Exception:
            continue
        shape = getattr(y, "shape", ())
        if len(shape) == 2 and shape[0] == x.shape[0]:
            return f"; explain `lambda x: {call}{part}` instead of f"
    if _raised_in(error, "/equinox/nn/"):
        return (
            ". A module of Equinox takes one image, channels first: explain "
            "`lambda x: jax.vmap(model)(x.transpose(0, 3, 1, 2))`"
        )
    return ""


def _raised_in(error: Exception | None, folder: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__) if error else ()
    return bool(frames) and folder in frames[-1].filename
