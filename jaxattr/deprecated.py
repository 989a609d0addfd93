"""Names and options that were renamed, and still work with a warning."""

import warnings
from collections.abc import Callable
from functools import wraps
from pkgutil import resolve_name
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

RENAMED = {
    "jaxattr.smooth": "jaxattr.smoothgrad",
    "jaxattr.smooth_squared": "jaxattr.smoothgrad_squared",
    "jaxattr.variance": "jaxattr.vargrad",
    "jaxattr.dmbp_decompose": "jaxattr.dmbp_details",
    "jaxattr.lpr_fit": "jaxattr.lpr_details",
    "jaxattr.rsp_relevance": "jaxattr.rsp_details",
    "jaxattr.fullgrad_decompose": "jaxattr.fullgrad_details",
    "jaxattr.tr_gbp_layers": "jaxattr.tr_gbp_details",
    "jaxattr.lrp_layers": "jaxattr.lrp_details",
    "jaxattr.deeplift_layers": "jaxattr.deeplift_details",
    "jaxattr.rap_layers": "jaxattr.rap_details",
    "jaxattr.excitation_layers": "jaxattr.excitation_backprop_details",
    "jaxattr.contrastive_excitation_layers": "jaxattr.contrastive_excitation_backprop_details",
    "jaxattr.meaningful_perturbation_fit": "jaxattr.meaningful_perturbation_details",
    "jaxattr.extremal_perturbation_fit": "jaxattr.extremal_perturbation_details",
    "jaxattr.paths": "jaxattr.loops.quadrature",
    "jaxattr.metrics.activation": "jaxattr.metrics.logit",
}
"""From old names to new ones."""


def renamed(module: str, name: str) -> Any:
    """Return what an old name of a module stands for, with a `DeprecationWarning`.

    Args:
        module: its dotted name.
        name: what was asked of it.

    Raises:
        AttributeError: if it is no old name either.
    """
    old = f"{module}.{name}"
    if old not in RENAMED:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{old} is now {RENAMED[old]}", DeprecationWarning, stacklevel=3)
    return resolve_name(RENAMED[old])


def renamed_options(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a function take options by their old names too, with a `DeprecationWarning`.

    Args:
        **names: from old names to new ones.

    Example:
        >>> @renamed_options(output="score")
        ... def measure(*, score):
        ...     return score
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     measure(output=2), str(caught[0].message)
        (2, 'output= of measure is now score=')
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def taking(*args: P.args, **options: P.kwargs) -> T:
            for old in names.keys() & options.keys():
                message = f"{old}= of {function.__name__} is now {names[old]}="
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                options[names[old]] = options.pop(old)
            return function(*args, **options)

        return taking

    return decorate
