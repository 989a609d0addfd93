"""The methods by name, those of other packages too, as the command line lists them."""

import difflib
import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

import jaxattr
from jaxattr.facts import FAMILIES, Facts, facts_of
from jaxattr.types import Array, Attribution, Fun, Key

GROUP = "jaxattr.methods"
"""The group of entry points by which another package adds methods, `name = "module:function"`."""


class Method(NamedTuple):
    """A method by name.

    Attributes:
        name: that it is found by.
        function: from a classifier, or from an attribution if it wraps one, to an attribution.
        facts: what its signature does not say.
    """

    name: str
    function: Callable[..., Attribution]
    facts: Facts

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def reference(self) -> str:
        """The paper, from its docstring."""
        _, _, rest = (inspect.getdoc(self.function) or "").partition("\nReference:\n")
        return " ".join(rest.partition("\n\n")[0].split())

    @property
    def options(self) -> dict[str, Any]:
        """Its keyword-only options with their defaults; a `layer` only if maps are of the image."""
        parameters = inspect.signature(self.function).parameters.values()
        known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        return {k: v for k, v in known.items() if k != "layer" or not self.facts.inner}


def _own(*, attends: bool) -> dict[str, Method]:
    public = ((name, value, facts_of(value)) for name, value in vars(jaxattr).items())
    found = [Method(name, value, facts) for name, value, facts in public if facts is not None]
    found = [m for m in found if m.facts.attends is attends]
    return {m.name: m for m in sorted(found, key=lambda m: FAMILIES.index(m.facts.family))}


METHODS = _own(attends=False)
"""The methods of the package for any network, family by family."""

ATTENDING = _own(attends=True)
"""Those made for networks with attention."""


def methods() -> dict[str, Method]:
    """Return all methods: the package's own, then those of other packages.

    A method of another package that cannot be loaded, or states no facts, is left out with a
    warning that names it; so is one with a name that is taken.
    """
    return METHODS | ATTENDING | _foreign()


@cache
def _foreign() -> dict[str, Method]:
    found = {}
    for entry in entry_points(group=GROUP):
        try:
            if entry.name in METHODS | ATTENDING:
                raise ValueError("jaxattr has a method of this name")
            found[entry.name] = _loaded(entry)
        except Exception as error:  # another package's import may raise anything
            warnings.warn(
                f"the method {entry.name!r} of another package ({entry.value}) is left out: "
                f"{type(error).__name__}: {error}",
                stacklevel=3,
            )
    return found


def _loaded(entry: EntryPoint) -> Method:
    function = entry.load()
    facts = facts_of(function)
    if facts is None:
        raise TypeError("it states no facts; decorate it with jaxattr.method")
    return Method(entry.name, function, facts)


def find(name: str) -> list[Method]:
    """Find a method, or a method of another: `smoothgrad:guided_backprop`.

    A method that wraps another and names none takes saliency.

    Args:
        name: names of `methods` with colons between them, the outermost first.

    Returns:
        The methods, the outermost first; all but the last wrap what follows.

    Raises:
        ValueError: if there is no such method, with the nearest names, or one that wraps nothing
            stands before a colon.

    Example:
        >>> [m.name for m in find("smoothgrad:guided_backprop")]
        ['smoothgrad', 'guided_backprop']
        >>> [m.name for m in find("vargrad")]
        ['vargrad', 'saliency']
    """
    chain = [_named(part) for part in name.split(":")]
    for method in chain[:-1]:
        if not method.facts.wraps:
            wrappers = ", ".join(m.name for m in methods().values() if m.facts.wraps)
            raise ValueError(
                f"{name!r}: {method.name} is no method of another one; before a colon stand "
                f"{wrappers}"
            )
    return [*chain, METHODS["saliency"]] if chain[-1].facts.wraps else chain


def _named(name: str) -> Method:
    if name in METHODS:
        return METHODS[name]
    known = methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(known)}"
        raise ValueError(f"there is no method {name!r}; {hint}")
    return known[name]


def build(chain: Sequence[Method], f: Fun, **options: Any) -> Attribution:
    """Make the attribution that `find` found.

    Args:
        chain: methods, the outermost first.
        f: images `(B, H, W, C)` to logits `(B, K)`.
        **options: options of any of the methods; each takes those it knows.
    """
    made: Any = f
    for method in reversed(chain):
        known = {k: v for k, v in options.items() if k in method.options}
        made = method.function(made, **known)
    return made


def panels(name: str) -> list[str]:
    """Return the titles of what `explain` gives for a method: its own, then its parts'.

    Example:
        >>> panels("dmbp"), panels("smoothgrad:dmbp")
        (['dmbp', 'dmbp.positive', 'dmbp.negative'], ['smoothgrad:dmbp'])
    """
    method, *inner = find(name)
    return [name, *(f"{name}.{part}" for part in method.facts.parts if not inner)]


def explain(
    chain: Sequence[Method], f: Fun, x: Array, target: Array, key: Key, **options: Any
) -> list[Array]:
    """Explain images by what `find` found, and by the parts of it that are worth a panel.

    Args:
        chain: methods, the outermost first.
        f: images `(B, H, W, C)` to logits `(B, K)`.
        x: the images.
        target: their classes, `(B,)`.
        key: for the methods that draw random numbers.
        **options: as for `build`.

    Returns:
        Maps, one for each of `panels`.
    """
    method, *inner = chain
    details = method.facts.details
    if inner or details is None or not method.facts.parts:
        return [build(chain, f, **options)(x, target, key=key)]
    known = {k: v for k, v in options.items() if k in method.options}
    found = details(f, **known)(x, target, key=key)
    return [found.attribution, *(getattr(found, part) for part in method.facts.parts)]
