"""The methods by name, as the command line and the README list them."""

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jaxattr
from jaxattr.types import Array, Attribution, Explanation, Fun, Key


class Method(NamedTuple):
    """A method, and what its signature does not say.

    Attributes:
        function: from a classifier, or from an attribution if it wraps one, to an attribution.
        cost: the passes through the network that one map takes.
        wraps: whether it is made of another attribution.
        random: whether it draws random numbers, so that it needs a key.
        decompose: its sibling that tells more, if the parts of it are worth a panel of their own.
        parts: their names in what `decompose` returns.
    """

    function: Callable[..., Attribution]
    cost: str
    wraps: bool = False
    random: bool = False
    decompose: Callable[..., Explanation[Any]] | None = None
    parts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

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
        """Its keyword-only options with their defaults."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


_GRADIENT = "1 forward, 1 backward"
_CAM = "1 forward, 1 backward to the layer"
_SAMPLES = "samples x the method"

METHODS = {
    method.name: method
    for method in (
        Method(jaxattr.saliency, _GRADIENT),
        Method(jaxattr.input_x_gradient, _GRADIENT),
        Method(jaxattr.integrated_gradients, f"steps x ({_GRADIENT})"),
        Method(jaxattr.blur_integrated_gradients, f"steps x ({_GRADIENT})"),
        Method(jaxattr.guided_integrated_gradients, f"steps x ({_GRADIENT})"),
        Method(jaxattr.xrai, f"2 x steps x ({_GRADIENT}), and segments on the host"),
        Method(jaxattr.guided_backprop, _GRADIENT),
        Method(jaxattr.deconvnet, _GRADIENT),
        Method(jaxattr.deeplift, "2 forward, 1 backward"),
        Method(jaxattr.lrp, "1 forward, 1 to 4 forward and backward per layer"),
        Method(jaxattr.excitation_backprop, "1 forward, 2 forward and backward per layer"),
        Method(jaxattr.contrastive_excitation_backprop, "as excitation_backprop"),
        Method(jaxattr.rap, "1 forward, 4 forward and backward per layer"),
        Method(jaxattr.rsp, "1 forward, 2 backward; 2 forward, 4 backward per layer"),
        Method(jaxattr.contrastive_rsp, "as excitation_backprop, then rsp"),
        Method(jaxattr.grad_cam, _CAM),
        Method(jaxattr.guided_grad_cam, "guided_backprop + grad_cam"),
        Method(jaxattr.grad_cam_plus_plus, _CAM),
        Method(jaxattr.score_cam, "1 forward to the layer, 1 for each of its channels"),
        Method(jaxattr.cameras, f"at each scale {_CAM}"),
        Method(jaxattr.fullgrad, _GRADIENT),
        Method(jaxattr.tr_gbp, "1 forward, top + 1 backward"),
        Method(jaxattr.occlusion, "1 forward for each window"),
        Method(jaxattr.rise, "samples x 1 forward", random=True),
        Method(jaxattr.meaningful_perturbation, f"steps x ({_GRADIENT})", random=True),
        Method(jaxattr.extremal_perturbation, f"steps x areas x ({_GRADIENT})"),
        Method(
            jaxattr.dmbp,
            "steps x (2 forward, 2 backward)",
            decompose=jaxattr.dmbp_decompose,
            parts=("positive", "negative"),
        ),
        Method(jaxattr.lpr, "steps x (2 forward, 4 backward)"),
        Method(jaxattr.smooth, _SAMPLES, wraps=True, random=True),
        Method(jaxattr.smooth_squared, _SAMPLES, wraps=True, random=True),
        Method(jaxattr.variance, _SAMPLES, wraps=True, random=True),
    )
}


def find(name: str) -> list[Method]:
    """Find a method, or a method of another: `smooth:guided_backprop`.

    A method that wraps another and names none takes saliency.

    Args:
        name: names of `METHODS` with colons between them, the outermost first.

    Returns:
        The methods, the outermost first; all but the last wrap what follows.

    Raises:
        ValueError: if there is no such method, with the nearest names, or one that wraps nothing
            stands before a colon.

    Example:
        >>> [m.name for m in find("smooth:guided_backprop")]
        ['smooth', 'guided_backprop']
        >>> [m.name for m in find("variance")]
        ['variance', 'saliency']
    """
    chain = []
    for part in name.split(":"):
        if part not in METHODS:
            near = difflib.get_close_matches(part, METHODS, n=3)
            hint = (
                f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(METHODS)}"
            )
            raise ValueError(f"there is no method {part!r}; {hint}")
        chain.append(METHODS[part])
    for method in chain[:-1]:
        if not method.wraps:
            wrappers = ", ".join(m.name for m in METHODS.values() if m.wraps)
            raise ValueError(
                f"{name!r}: {method.name} is no method of another one; before a colon stand "
                f"{wrappers}"
            )
    return [*chain, METHODS["saliency"]] if chain[-1].wraps else chain


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
        >>> panels("dmbp"), panels("smooth:dmbp")
        (['dmbp', 'dmbp.positive', 'dmbp.negative'], ['smooth:dmbp'])
    """
    method, *inner = find(name)
    return [name, *(f"{name}.{part}" for part in method.parts if not inner)]


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
    if inner or method.decompose is None:
        return [build(chain, f, **options)(x, target, key=key)]
    known = {k: v for k, v in options.items() if k in method.options}
    found = method.decompose(f, **known)(x, target, key=key)
    return [found.attribution, *(getattr(found, part) for part in method.parts)]
