"""Attributions that know what they were made of, so that they can be pickled and copied."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Portable:
    """An attribution, pickled and copied as the method and the arguments that made it.

    Args:
        method: what made it, found by its name when it is read again.
        explain: the attribution.
        *args: what the method was given.
        **options: its options.
    """

    def __init__(
        self, method: Callable[..., Any], explain: Callable[..., Any], *args: Any, **options: Any
    ) -> None:
        functools.update_wrapper(self, method, updated=())
        self.__wrapped__ = explain
        self._made = functools.partial(method, *args, **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Explain."""
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[()]]:
        """Return what makes it again."""
        return self._made, ()


def portable(method: FunctionT) -> FunctionT:
    """Let what a function returns be pickled and copied, if its arguments can be.

    Law: what is read back explains as what was written. A `lambda`, or a function inside another,
    is found by no name: explain a model, or a function of a module. Facts beside a method make it
    portable already.

    Args:
        method: returns an attribution, or all that a method finds; found by its name in a module.

    Returns:
        The same function.

    Example:
        >>> import operator, pickle, jaxattr
        >>> pickle.loads(pickle.dumps(jaxattr.saliency(operator.neg))).__name__
        'saliency'
    """

    @functools.wraps(method)
    def made(*args: Any, **options: Any) -> Any:
        return Portable(made, method(*args, **options), *args, **options)

    return cast(FunctionT, made)
