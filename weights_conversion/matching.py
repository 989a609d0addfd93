"""Which key of a checkpoint is which name of a model, and what is said where they do not fit."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TypeAlias

Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]
"""From a key of a checkpoint to another: a function, or from how keys begin to what they become."""

MAX_LINES = 10  # of a message


def renaming(rename: Rename | None) -> Callable[[str], str]:
    """Return a function of keys. Of several beginnings that fit the longest counts.

    >>> renamed = renaming({"backbone.": "", "head.": "fc."})
    >>> renamed("backbone.conv1"), renamed("head.bias")
    ('conv1', 'fc.bias')
    """
    if rename is None:
        return lambda key: key
    if not isinstance(rename, Mapping):
        return rename
    longest = sorted(rename, key=len, reverse=True)

    def renamed(key: str) -> str:
        old = next((o for o in longest if key.startswith(o)), None)
        return key if old is None else rename[old] + key[len(old) :]

    return renamed


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Return how keys begin, and what that becomes, from texts `OLD=NEW`.

    >>> pairs(["backbone.=", "head.=fc."])
    {'backbone.': '', 'head.': 'fc.'}
    """
    split = {old: new for old, mark, new in (text.partition("=") for text in texts) if mark}
    if wrong := [text for text in texts if "=" not in text]:
        raise ValueError(f"{wrong[0]!r} renames nothing: expected OLD=NEW")
    return split


def without_prefix(
    keys: Iterable[str], names: Iterable[str], rename: Callable[[str], str]
) -> dict[str, str]:
    """Return a name for each key; counters of BatchNorms have none.

    What all keys begin with, as Lightning's `model.`, is taken off as far as it takes until a name
    of the model appears.

    >>> without_prefix(["net.0.weight", "net.0.bias"], ["0.weight", "0.bias"], lambda key: key)
    {'net.0.weight': '0.weight', 'net.0.bias': '0.bias'}
    """
    kept = [key for key in keys if not key.endswith("num_batches_tracked")]
    wanted, parts = set(names), [key.split(".") for key in kept]
    shared = 0
    for column in zip(*(p[:-1] for p in parts), strict=False):
        if len(set(column)) > 1:
            break
        shared += 1
    for depth in range(shared + 1):
        found = [rename(".".join(p[depth:])) for p in parts]
        if wanted.intersection(found):
            return dict(zip(kept, found, strict=True))
    return {key: rename(key) for key in kept}


def classifier(
    names: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    own: Iterable[str],
    *,
    last: str,
    width: int,
) -> str | None:
    """Return what a checkpoint calls the last layer of a model, if it is one that fits.

    Args:
        names: from the checkpoint's keys to the model's names, as far as they are equal.
        shapes: of the checkpoint's arrays.
        own: all names of the model.
        last: the model's name of its last dense layer.
        width: how many features it takes.

    Returns:
        `last` where the checkpoint has it; else the only layer that is none of the model's, with a
        weight `(K, width)` and a bias `(K,)`; else None.
    """
    keys = {name: key for key, name in names.items()}
    if f"{last}.weight" in keys:
        return last
    others = keys.keys() - set(own)
    layers = [name.removesuffix(".weight") for name in others if name.endswith(".weight")]
    fitting = []
    for layer in layers:
        weight, bias = (keys.get(f"{layer}.{part}") for part in ("weight", "bias"))
        if weight and bias and shapes[weight] == (*shapes[bias], width):
            fitting.append(layer)
    return fitting[0] if len(fitting) == 1 else None


def misfit(problems: list[str], fitting: int, names: Iterable[str], unused: Iterable[str]) -> str:
    """Say what does not fit in ten lines: the first problems, and where they may come from.

    Args:
        problems: one line each.
        fitting: how many of the model's arrays fit.
        names: the model's names for which the checkpoint has nothing.
        unused: the checkpoint's keys that the model has no place for.
    """
    names, unused = list(names), list(unused)
    head = "the checkpoint does not fit the model:"
    if fitting:
        total = fitting + sum(
            not p.startswith(("unused", "flatten", "ambiguous")) for p in problems
        )
        head += f" {fitting} of the model's {total} arrays do"
    hints = _hints(names, unused, fitting) if len(problems) > MAX_LINES - 3 else []
    room = MAX_LINES - 1 - len(hints)
    shown = problems if len(problems) <= room else problems[: room - 1]
    if rest := len(problems) - len(shown):
        shown = [*shown, f"and {rest} more: python -m weights_conversion MODEL --check FILE"]
    return "\n  ".join([head, *shown, *hints])


def _hints(names: list[str], unused: list[str], fitting: int) -> list[str]:
    hints = []
    near = [(m[0], n) for n in names[:9] for m in [get_close_matches(n, unused[:999], 1, 0.7)] if m]
    if near:
        hints.append("near: " + ", ".join(f"{key} to {name}" for key, name in near[:2]))
    ends = Counter(
        key[: -len(name)] for name in names[:500] for key in unused if key.endswith(f".{name}")
    )
    if ends:
        prefix, count = ends.most_common(1)[0]
        hints.append(
            f"{count} keys fit behind {prefix!r}: take it off by rename={{{prefix!r}: ''}}"
        )
    elif not fitting:
        hints.append("nothing fits: this is another architecture, or its keys need rename=")
    return hints
