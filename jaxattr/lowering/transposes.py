"""Linear and bilinear functions that bring their own transposes, and the choice per platform.

A layer that is slow to differentiate is rarely slow to write: its vector-Jacobian product is
another linear map, which another spelling computes fast. Here a map is tied to that spelling and
the spelling to the map, so that reverse mode can be taken any number of times.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxattr.types import Array


def on_cpu(fast: Callable[..., Array], own: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function that is `fast` on a CPU and `own`, XLA's, everywhere else.

    The choice falls when a program is lowered for its device: what is compiled holds one of the
    two and no conditional.
    """
    return lambda *args: lax.platform_dependent(*args, cpu=fast, default=own)


def linear(value: Callable[..., Array], transpose: Callable[..., Array]) -> Callable[..., Array]:
    """Tie a linear map to its transpose: each becomes the derivative of the other.

    Args:
        value: `value(*given, x)`, linear in `x`.
        transpose: `transpose(*given, c)`, from the shape of the result to that of `x`.

    Returns:
        `value` with this derivative. What is `given` has none.
    """
    forward, backward = jax.custom_vjp(value), jax.custom_vjp(transpose)

    def tie(f: Any, transposed: Any) -> None:
        f.defvjp(
            lambda *args: (f(*args), args[:-1]),
            lambda given, c: (*(None for _ in given), transposed(*given, c)),
        )

    tie(forward, backward)
    tie(backward, forward)
    return forward


def bilinear(
    value: Callable[[Array, Array], Array],
    to_left: Callable[[Array, Array], Array],
    to_right: Callable[[Array, Array], Array],
) -> Callable[[Array, Array], Array]:
    r"""Tie a bilinear map to its two transposes.

    $y(x, w)$, $x'(w, c)$ and $w'(x, c)$ are three views of one trilinear form,

    $$\langle y(x, w), c \rangle = \langle x, x'(w, c) \rangle = \langle w, w'(x, c) \rangle,$$

    so the derivatives of each are the other two. A cotangent that nobody asked for (the kernel's,
    when only the image is differentiated) is not computed, nor its operand kept.

    Args:
        value: $y(x, w)$.
        to_left: $x'(w, c)$, the vector-Jacobian product to the left operand.
        to_right: $w'(x, c)$, to the right operand.

    Returns:
        `value` with these derivatives, to any order.
    """
    y, x_bar, w_bar = jax.custom_vjp(value), jax.custom_vjp(to_left), jax.custom_vjp(to_right)

    def tie(f: Any, to_first: Callable[..., Array], to_second: Callable[..., Array]) -> None:
        def fwd(a: Any, b: Any) -> Any:
            residuals = b.value if a.perturbed else None, a.value if b.perturbed else None
            return f(a.value, b.value), residuals

        def bwd(residuals: Any, c: Any) -> Any:
            b, a = residuals
            zero = isinstance(c, SymbolicZero)
            return (
                None if zero or b is None else to_first(b, c),
                None if zero or a is None else to_second(a, c),
            )

        f.defvjp(fwd, bwd, symbolic_zeros=True)

    tie(y, x_bar, w_bar)
    tie(x_bar, lambda c, u: w_bar(u, c), lambda w, u: y(u, w))
    tie(w_bar, lambda c, u: x_bar(u, c), y)
    return y
