"""Compile and run over batches, and say how long that takes."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import jax
import numpy as np


def program(title: str, function: Callable) -> Callable[..., Any]:
    """Return a function of a model and arrays that is compiled when it meets new shapes.

    It returns NumPy arrays, and says what the first call takes.
    """
    compiled: dict[Any, Callable] = {}

    def run(net: Any, *arrays: np.ndarray) -> Any:
        shapes = tuple(a.shape for a in arrays)
        if shapes in compiled:
            return jax.tree.map(np.asarray, compiled[shapes](net, *arrays))
        size, height, width, _ = shapes[0]
        images = f"{size} image{'s'[: size > 1]} of {height}x{width}"
        with timed(f"compiling {title} for {images} ... ", end=""):
            compiled[shapes] = jax.jit(function).lower(net, *arrays).compile()
        with timed(", then "):
            return run(net, *arrays)

    return run


@contextmanager
def timed(what: str, *, end: str = "\n") -> Iterator[None]:
    """Print what is done while it is done, and how long it took."""
    start = time.perf_counter()
    click.echo(what, nl=False, err=True)
    try:
        yield
    except BaseException:
        click.echo(err=True)
        raise
    seconds = time.perf_counter() - start
    click.echo(f"{seconds:.{1 if seconds >= 1 else 2}f} s{end}", nl=False, err=True)


def keep_programs() -> None:
    """Let XLA keep what it compiles, so that only the first run waits for it."""
    from weights_conversion import cache_directory

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "xla"))
