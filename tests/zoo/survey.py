"""What each method makes of each architecture, and the page that says so: docs/architectures.md.

`PYTHONPATH=tests python tests/zoo/survey.py` writes the page anew.
"""

import re
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np
from jax import Array
from speed import ALIKE
from zoo.architectures import ARCHITECTURES, Classifier, build, description, images

from jaxattr import saliency
from jaxattr.catalogue import ATTENDING, METHODS
from jaxattr.tracing.local import UnsupportedOperation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"
ANY = ("gradients", "paths", "perturbations", "noise")
"""Families that ask a network for nothing but values and gradients."""
DISTINCT = {name: method for name, method in METHODS.items() if name not in ALIKE}
READERS = tuple(name for name, method in DISTINCT.items() if method.facts.family not in ANY)


def quarters(image: np.ndarray) -> np.ndarray:
    """Cut an image into four."""
    rows, columns = (np.arange(n) < n // 2 for n in image.shape[:2])
    top, left = np.broadcast_arrays(rows[:, None], columns)
    return np.stack([top & left, top & ~left, ~top & left, ~top & ~left])


SMALL = {
    "areas": (0.5,),
    "cells": 3,
    "max_sigma": 2.0,
    "min_pixels": 4,
    "samples": 2,
    "scales": (1,),
    "segments": quarters,
    "sigma": 2.0,
    "spacing": 4,
    "steps": 2,
    "window": 4,
}
"""Options that make a method quick, for the methods that have them."""


def explained(f: Classifier, name: str) -> Callable[..., Array]:
    """Return the attribution of a method as a function of images and classes alone."""
    method = (METHODS | ATTENDING)[name]
    options = {key: value for key, value in SMALL.items() if key in method.options}
    attribute = method.function(saliency(f) if method.facts.wraps else f, **options)
    return lambda x, target: attribute(x, target, key=jax.random.key(0))


def classes(name: str, count: int = 3) -> tuple[Array, Array]:
    """Return images, and classes that an architecture has."""
    x, target = images(count)
    return x, 0 * target if name == "one logit" else target


def refusal(name: str, method: str) -> str:
    """Return why a method refuses an architecture, in a clause, or nothing if it does not."""
    try:
        jax.eval_shape(explained(build(name), method), *classes(name))
    except (UnsupportedOperation, ValueError) as error:
        place = r",? at (an unknown line|\S+:\d+ \(.*?\)(?=,| |:|$)),?"
        plain = re.sub(r",? (of )?shape \([\d, ]*\)", "", re.sub(place, "", str(error)))
        return re.split(r"[;:.]\s", plain)[0]
    return ""


def row(name: str) -> str:
    """Return the row of an architecture: what is in it, what refuses it."""
    reasons: dict[str, list[str]] = {}
    for method in READERS:
        if reason := refusal(name, method):
            reasons.setdefault(reason, []).append(f"`{method}`")
    told = "; ".join(f"{', '.join(methods)}: {reason}" for reason, methods in reasons.items())
    return f"| {name} | {description(name)} | {told} |"


def attended(method: str) -> str:
    """Return the row of a method made for attention: the architectures that it takes."""
    names = [name for name in ARCHITECTURES if not refusal(name, method)]
    return f"| `{method}` | {'; '.join(names)} |"


def table(number: int) -> dict[str, str]:
    """Read a table of the page, by what its rows begin with."""
    text = re.findall(r"^\|(?:---\|)+\n((?:\|.*\n)*)", PAGE.read_text(), re.MULTILINE)[number]
    return {line.split(" | ")[0].strip("| `"): line for line in text.splitlines()}


def refused(name: str) -> set[str]:
    """Return the methods that refuse an architecture, as the page says."""
    return set(re.findall(r"`(\w+)`[,:]", table(0)[name].split(" | ", 2)[2]))


def alike() -> str:
    """Say which methods stand for others."""
    stands = {k: [n for n, one in ALIKE.items() if one == k and n in METHODS] for k in READERS}
    told = "; ".join(
        f"`{k}` stands for {', '.join(f'`{n}`' for n in names)}"
        for k, names in stands.items()
        if names
    )
    return textwrap.fill(f"Here {told}.", 100)


def page(told: Iterable[str], attending: Iterable[str]) -> str:
    """Return the page with the rows of its tables."""
    first, second = ("".join(f"{line}\n" for line in lines) for lines in (told, attending))
    return f"""\
# Architectures

Which method takes which architecture: {len(METHODS)} methods, {len(ARCHITECTURES)} architectures, \
each of them a tiny instance in
`tests/zoo/architectures.py`. This page is written by `tests/zoo/survey.py` and checked by the tests
beside it, which hold methods to their laws on these networks: a batch has the maps of its images,
`vmap`, `jit` and devices change nothing, maps sum to what their method promises, and every spelling
of a network has the same maps.

The methods of the families {", ".join(ANY)} take all of them: they ask a
network for nothing but values and gradients. Of the others a row names those that refuse the
architecture, and the reason that their error gives; the error names the line too.

{alike()}

| architecture | what is in it | refused by |
|---|---|---|
{first}
Methods made for networks with attention:

| method | takes |
|---|---|
{second}"""


if __name__ == "__main__":
    PAGE.write_text(page(map(row, ARCHITECTURES), map(attended, ATTENDING)))
