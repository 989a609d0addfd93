"""Linear and bilinear functions that bring their own transposes, and the choice per platform.

A layer that is slow to differentiate is rarely slow to write: its vector-Jacobian product is
another linear map, which another spelling computes fast. Here a map is tied to that spelling and
the spelling to the map, so that derivatives of any mode can be taken any number of times.

Such a map is one equation of a program. It is spelled out only when the program is lowered for a
device, for that device alone: tracing, mapping and differentiating a layer take as long as they do
for XLA's own, however long its spelling is.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir
from jax.interpreters.partial_eval import dce_jaxpr

from jaxattr.lowering.varying import is_laid_out, vary_like
from jaxattr.types import Array

Function = Callable[..., Array]
_KEPT = 4096  # spellings, and programs of them, that are remembered


class Spelling:
    """A function with another spelling on the CPU, one equation of a program.

    Args:
        fast: what a CPU runs.
        own: what it means, and what every other platform runs unless all run `fast`.
        transposes: of a function that is linear in some of its operands, the transpose to each of
            these, from the other operands and a cotangent. Operands are numbered from the last,
            which is -1; one without a transpose has no derivative.
        everywhere: whether all platforms run `fast`.
    """

    def __init__(
        self,
        fast: Function,
        own: Function,
        transposes: Mapping[int, Function] | None = None,
        everywhere: bool = False,
    ) -> None:
        self.fast, self.own, self.everywhere = fast, own, everywhere
        self.transposes = transposes or {}

    def __call__(self, *args: Any) -> Array:
        """Run it."""
        args = tuple(reduce(vary_like, args, a) for a in args)
        # JAX has no convolution with kernels of each image's own on an explicit mesh.
        meant = self.fast if self.everywhere and any(map(is_laid_out, args)) else self.own
        avals = tuple(map(jax.typeof, args))
        try:
            body = _program(meant, avals)
        except NotImplementedError:  # nor one in groups, in a part of a mesh
            body = _program(self.fast, avals)
        return spelled.bind(*args, spelling=self, body=body)


def on_cpu(fast: Function, own: Function) -> Spelling:
    """Return a function that is `fast` on a CPU and `own`, XLA's, everywhere else.

    The choice falls when a program is lowered for its device: what is compiled holds one of the
    two and no conditional. It has no derivative.
    """
    return Spelling(fast, own)


def instead(fast: Function, own: Function) -> Spelling:
    """Return a function that is `fast` on every platform and means `own`. It has no derivative."""
    return Spelling(fast, own, everywhere=True)


def linear(value: Function, transpose: Function) -> Spelling:
    """Tie a linear map to its transpose: each becomes the derivative of the other.

    Args:
        value: `value(*given, x)`, linear in `x`.
        transpose: `transpose(*given, c)`, from the shape of the result to that of `x`.

    Returns:
        `value` with this derivative. What is `given` has none.
    """
    forward = _tied(value, {-1: lambda *args: backward(*args)})
    backward = _tied(transpose, {-1: forward})
    return forward


def bilinear(value: Function, to_left: Function, to_right: Function) -> Spelling:
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
    y = _tied(value, {-2: lambda w, c: left(w, c), -1: lambda x, c: right(x, c)})
    left = _tied(to_left, {-2: lambda c, u: right(u, c), -1: lambda w, u: y(u, w)})
    right = _tied(to_right, {-2: lambda c, u: left(u, c), -1: y})
    return y


def _tied(f: Function, transposes: Mapping[int, Function]) -> Spelling:
    spelling = f if isinstance(f, Spelling) else Spelling(f, f)
    return Spelling(spelling.fast, spelling.own, transposes, spelling.everywhere)


@lru_cache(_KEPT)
def _program(f: Function, avals: tuple[Any, ...]) -> ClosedJaxpr:
    closed = jax.make_jaxpr(f)(*avals)
    jaxpr, _ = dce_jaxpr(closed.jaxpr, [True], instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


@lru_cache(_KEPT)
def _compiled(spelling: Spelling) -> Function:
    return jax.jit(lambda *args: spelling(*args))


@lru_cache(_KEPT)
def _mapped(spelling: Spelling, mapped: tuple[bool, ...]) -> Spelling:
    """Return a spelling over the first axes of some operands, as `jax.vmap` does."""
    axes = tuple(0 if m else None for m in mapped)

    def transposed(place: int) -> Function:
        i = place % len(axes)
        every = jax.vmap(spelling.transposes[place], (*axes[:i], *axes[i + 1 :], 0))
        return every if mapped[i] else lambda *args: every(*args).sum(0)

    fast, own = (jax.vmap(f, axes) for f in (spelling.fast, spelling.own))
    transposes = {place: transposed(place) for place in spelling.transposes}
    return Spelling(fast, own, transposes, spelling.everywhere)


def _impl(*args: Any, spelling: Spelling, body: ClosedJaxpr) -> Any:
    if jax.config.jax_disable_jit:  # pyright: ignore[reportAttributeAccessIssue]
        return jaxpr_as_fun(body)(*args)[0]
    return _compiled(spelling)(*args)


def _batch(args: Any, dims: Any, *, spelling: Spelling, body: ClosedJaxpr) -> tuple[Array, int]:
    mapped = tuple(d is not None for d in dims)
    args = [jnp.moveaxis(a, d, 0) if m else a for a, d, m in zip(args, dims, mapped, strict=True)]
    return _mapped(spelling, mapped)(*args), 0


def _jvp(primals: Any, tangents: Any, *, spelling: Spelling, body: ClosedJaxpr) -> tuple[Any, Any]:
    y = spelling(*primals)
    moved = [
        spelling(*primals[:i], t, *primals[i + 1 :])
        for i, t in enumerate(tangents)
        if type(t) is not ad.Zero and i - len(primals) in spelling.transposes
    ]
    return y, reduce(ad.add_tangents, moved, ad.Zero(jax.typeof(y).to_tangent_aval()))


def _transpose(c: Any, *args: Any, spelling: Spelling, body: ClosedJaxpr) -> list[Any]:
    (i,) = (i for i, a in enumerate(args) if ad.is_undefined_primal(a))
    back = spelling.transposes[i - len(args)]
    found = ad.Zero(args[i].aval) if type(c) is ad.Zero else back(*args[:i], *args[i + 1 :], c)
    return [found if j == i else None for j in range(len(args))]


spelled = Primitive("spelled")
"""The primitive of spellings; `body` is what one means, for those who read a program."""
spelled.def_impl(_impl)
spelled.def_abstract_eval(lambda *avals, spelling, body: body.out_avals[0])
ad.primitive_jvps[spelled] = _jvp
ad.primitive_transposes[spelled] = _transpose
batching.primitive_batchers[spelled] = _batch


def _everywhere(*args: Any, spelling: Spelling, body: ClosedJaxpr) -> Array:
    if spelling.everywhere:
        return _fast(*args, spelling=spelling, body=body)
    return jaxpr_as_fun(body)(*args)[0]


def _fast(*args: Any, spelling: Spelling, body: ClosedJaxpr) -> Array:
    return jaxpr_as_fun(_program(spelling.fast, tuple(map(jax.typeof, args))))(*args)[0]


mlir.register_lowering(spelled, mlir.lower_fun(_everywhere, multiple_results=False))
mlir.register_lowering(spelled, mlir.lower_fun(_fast, multiple_results=False), platform="cpu")
