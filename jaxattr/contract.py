"""What every attribution method does with its images and classes."""

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxattr.frameworks.advice import advice
from jaxattr.frameworks.entering import EVALUATION
from jaxattr.independence import Findings, examine
from jaxattr.lowering.varying import laid_out_like
from jaxattr.lowering.varying import vary_like as vary_like
from jaxattr.scores import chosen
from jaxattr.types import Array, Attribution, Baseline, Explanation, Fun, Key

P = ParamSpec("P")
T = TypeVar("T")


def attribution(
    f: Fun,
    explain: Callable[[Array, Array, Any], T],
    *,
    differentiates: bool = True,
    has_rules: bool = False,
) -> Explanation[T]:
    """Make an `Attribution` of a function that may take its arguments for granted.

    Args:
        f: the classifier, for the number of its classes.
        explain: `(x, target, key) -> maps`, an array or several, the batch in front.
        differentiates: whether it takes derivatives, which integers on the way would make zero.
        has_rules: whether it takes them by rules, which are made for logits: where `f` ends in
            probabilities, a `UserWarning` says where, and how to explain logits.

    Returns:
        `explain` behind the contract that all methods share: images `(B, H, W, C)` of a float
        dtype, integer classes `(B,)`; a value that is known and wrong raises `ValueError`; where
        values are unknown, under `jit`, a class out of range gives a map of NaN; no images get no
        maps.
    """

    def attribute(x: Array, target: Array, *, key: Key | None = None) -> T:
        if target is None:
            raise ValueError(
                "target is None: pass one class for each image, such as f(x).argmax(-1) for the "
                "class of the highest logit"
            )
        x, target = jnp.asarray(x), jnp.asarray(target)
        classes = check_batch(f, x, target, differentiates=differentiates, has_rules=has_rules)
        target = target.astype(jnp.promote_types(target.dtype, jnp.int32))
        if not len(x):
            one = [jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype) for a in (x, target)]
            maps = jax.eval_shape(lambda x, target: explain(x, target, key), *one)
            return jax.tree.map(lambda a: jnp.zeros((0, *a.shape[1:]), a.dtype), maps)
        inside = (target >= 0) & (target < classes)

        def known_class(maps: Array) -> Array:
            if not jnp.issubdtype(maps.dtype, jnp.inexact):
                return maps
            return jnp.where(inside.reshape(-1, *[1] * (maps.ndim - 1)), maps, jnp.nan)

        return jax.tree.map(known_class, explain(x, target, key))

    return attribute


def same_options(other: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function that passes its arguments on the signature of the one that takes them."""

    def decorate(function: Callable[..., T]) -> Callable[P, T]:
        signature = inspect.signature(other)
        returned = inspect.signature(function).return_annotation
        function.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return function

    return decorate


class Detailed(Protocol):
    """What a method finds: a NamedTuple whose first field is the attribution."""

    @property
    def attribution(self) -> Array:
        """The map that the plain method returns."""
        ...


def attribution_of(explain: Explanation[Detailed]) -> Attribution:
    """Make the plain method of its fuller sibling: the attribution alone."""
    return lambda x, target, *, key=None: explain(x, target, key=key).attribution


def repeated(target: Array, n: int) -> Array:
    """Return every class `n` times, one after the other: `(B,)` to `(B n,)`."""
    return jnp.broadcast_to(target[:, None], (target.shape[0], n)).reshape(-1)


def class_gradient(f: Fun, x: Array, target: Array) -> Array:
    """Return `d f(x)[b, target[b]] / dx` for every image of a batch."""
    logits, pull = jax.vjp(f, x)
    (gradient,) = pull(one_hot(target, logits))
    return where_finite(gradient, logits)


def where_finite(maps: T, logits: Array) -> T:
    """Put NaN for each image whose logits hold NaN or infinity: a gate would make zeros of them.

    A logit of minus infinity is a class that is left out.

    Args:
        maps: arrays, the batch in front.
        logits: `(B, ...)`.
    """
    finite = (logits < jnp.inf).all(range(1, logits.ndim))
    return jax.tree.map(
        lambda a: jnp.where(finite.reshape(-1, *[1] * (a.ndim - 1)), a, jnp.nan), maps
    )


def one_hot(target: Array, logits: Array) -> Array:
    """Return the cotangent of logits that picks the target of every image."""
    return chosen(logits, target).astype(logits.dtype)


def need_key(key: Key | None, method: str) -> Key:
    """Return the key, or say that the method draws random numbers."""
    if key is None:
        raise ValueError(f"{method} draws random numbers: pass key=jax.random.key(seed)")
    if not hasattr(key, "dtype"):
        raise ValueError(f"key is {key!r}; expected a key of JAX, as key=jax.random.key(seed)")
    return key


def one_by_one(f: Fun, explain: Callable[..., T], x: Array, *others: Array) -> T:
    """Map what explains one image over a batch.

    Args:
        f: the classifier.
        explain: `(image, ...) -> maps`, each without a batch axis.
        x: images `(B, H, W, C)`.
        *others: what else there is for each image.

    Raises:
        ValueError: if `f` does not take one image as it takes a batch.
    """
    jax.eval_shape(jax.vmap(lambda image: at_any_size(f, image[None])), x)
    return jax.vmap(explain)(x, *others)


def at_any_size(f: Fun, x: Array) -> Array:
    """Return the logits of another number of images than was given to be explained.

    Raises:
        ValueError: if that number is fixed, as where `f` closes over something else for each image.
    """
    try:
        logits = f(x)
        fits = logits.shape[0] == x.shape[0]
    except (TypeError, ValueError) as error:
        raise ValueError(_of_one_size(x)) from error
    if not fits:
        raise ValueError(_of_one_size(x))
    return logits


def _of_one_size(x: Array) -> str:
    return (
        f"the function takes the given number of images, but not {x.shape[0]}, which this method "
        "shows it at once: it may close over something else for each image. Make a function of one "
        "image of it, and explain that under jax.vmap over the images and all that goes with them"
    )


def check_batch(
    f: Fun, x: Array, target: Array, *, differentiates: bool = False, has_rules: bool = False
) -> int:
    """Raise `ValueError` unless `f` takes `x`, and has the classes of `target`; return how many."""
    check_images(x)
    found = _examine(f, x)
    classes = _classes(f, found, x)
    check_targets(target, x.shape[0], classes)
    if differentiates:
        _check_derivative(found)
    if has_rules and found.probabilities is not None:
        warnings.warn(
            f"the function ends in probabilities, by `{found.probabilities.primitive}` at "
            f"{found.probabilities.source}: this method is made for logits. Return what enters it",
            stacklevel=4,
        )
    return classes


def check_images(x: Array) -> None:
    """Raise `ValueError` unless `x` is a batch of finite images of a float dtype."""
    if x.ndim != 4:
        raise ValueError(
            f"x has shape {x.shape}; expected a batch of images (batch, height, width, channels)"
            + (": write x[None] for a single one" if x.ndim == 3 else "")
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"x has dtype {x.dtype}; expected a float dtype: pass images as the model takes them, "
            "already normalized"
        )
    if is_concrete(x):
        with jax.ensure_compile_time_eval():
            finite = np.asarray(jnp.isfinite(x).all(axis=(1, 2, 3)))
        if not finite.all():
            raise ValueError(f"x[{int(finite.argmin())}] holds a value that is not finite")


def check_targets(target: Array, batch: int, classes: int) -> None:
    """Raise `ValueError` unless `target` holds a class for every image."""
    if target.shape != (batch,) or not jnp.issubdtype(target.dtype, jnp.integer):
        raise ValueError(
            f"target has shape {target.shape} and dtype {target.dtype}; expected one integer class "
            f"for each of the {batch} images, shape ({batch},)"
        )
    if is_concrete(target):
        values = np.asarray(target)
        if (wrong := (values < 0) | (values >= classes)).any():
            i = int(wrong.argmax())
            raise ValueError(f"target[{i}] is {values[i]}; the classes are 0 to {classes - 1}")


def count_classes(f: Fun, x: Array) -> int:
    """Return K for a classifier of logits `(B, K)`, of which each sees its own image alone."""
    return _classes(f, _examine(f, x), x)


def _examine(f: Fun, x: Array) -> Findings:
    try:
        return examine(f, x)
    except Exception as error:
        if instead := advice(f, x, error):
            what = f"the function raised {type(error).__name__} for images of shape {x.shape}"
            raise ValueError(what + instead) from error
        raise


def _classes(f: Fun, found: Findings, x: Array) -> int:
    logits = found.output
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != x.shape[0]:
        what = f"shape {shape}" if shape is not None else f"a {type(logits).__name__}"
        raise ValueError(
            f"the function returned {what} for images of shape {x.shape}; expected logits of "
            f"shape ({x.shape[0]}, classes){advice(f, x)}"
        )
    if found.mixing is not None:
        raise ValueError(
            f"`{found.mixing.primitive}` at {found.mixing.source} goes over the batch, so that the "
            f"images change each other's maps, as a BatchNorm in training mode does: {EVALUATION}"
        )
    return shape[1]


def _check_derivative(found: Findings) -> None:
    """Raise `ValueError` if no derivative passes through a function."""
    if found.integer is not None:
        raise ValueError(
            f"the function rounds to integers before {found.integer.source}: no derivative passes "
            "there, and the map would be zero. Explain the model of floats, or give that step a "
            "derivative of its own by jax.custom_vjp"
        )


def broadcast(
    name: str, value: ArrayLike, like: Array, shape: Sequence[int] | None = None
) -> Array:
    """Return an option as an array of the dtype and shape of another.

    Args:
        name: of the option.
        value: a number, or an array that broadcasts.
        like: has the dtype, and the shape unless there is `shape`.
        shape: of the result.

    Raises:
        ValueError: if it does not broadcast.

    Example:
        >>> broadcast("baseline", 0.5, jnp.ones((1, 2)))
        Array([[0.5, 0.5]], dtype=float32)
    """
    wanted = like.shape if shape is None else tuple(shape)
    if not jnp.issubdtype(like.dtype, jnp.inexact):
        _check_held(name, value, like.dtype)
    a = jnp.asarray(value, like.dtype)
    try:
        return laid_out_like(jnp.broadcast_to(a, wanted), like)
    except ValueError:
        raise ValueError(
            f"{name} has shape {a.shape}, which does not broadcast to {wanted}; pass a number or "
            "an array of that shape"
        ) from None


def _check_held(name: str, value: ArrayLike, dtype: np.dtype) -> None:
    """Raise `ValueError` if an integer dtype rounds an option, or wraps it."""
    if is_concrete(value):
        with np.errstate(invalid="ignore"):
            changed = np.asarray(value).astype(dtype) != np.asarray(value)
        if changed.any():
            raise ValueError(
                f"{name} is {value}, which images of dtype {dtype} cannot hold: pass whole "
                "numbers, or images of a float dtype"
            )


def resolve_baseline(baseline: Baseline, x: Array) -> Array:
    """Return the baseline of every image, an array of the shape and dtype of `x`.

    Raises:
        ValueError: if it is a bool, or an array that does not broadcast.

    Example:
        >>> resolve_baseline(lambda x: x / 2, jnp.ones((1, 2)))
        Array([[0.5, 0.5]], dtype=float32)
    """
    value = baseline(x) if callable(baseline) else baseline
    if isinstance(value, bool | np.bool):
        raise ValueError(
            f"baseline is {value}; expected a number, an array that broadcasts to {x.shape} or a "
            "function of images"
        )
    return broadcast("baseline", value, x)


def check_positive(name: str, value: int) -> None:
    """Raise `ValueError` unless an option that counts something is at least 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}; expected at least 1")


def check_not_negative(name: str, value: float) -> None:
    """Raise `ValueError` unless an option that measures something is finite and at least 0."""
    if is_concrete(value) and not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value}; expected a finite number that is not negative")


def is_concrete(value: Any) -> bool:
    """Whether an array has a value to look at, that is, it is not traced by a transformation."""
    return not isinstance(value, Tracer)
