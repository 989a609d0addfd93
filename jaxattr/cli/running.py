"""Compile and run over batches, and say how long that takes."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import jax
import numpy as np


def run(title: str, function: Callable, net: Any, *arrays: np.ndarray, batch: int) -> Any:
    """Compile a function of a model and arrays, run it over batches, and say what that takes."""
    count, size = len(arrays[0]), min(batch, len(arrays[0]))
    height, width = arrays[0].shape[1:3]
    padded = [np.concatenate([a, a[:1].repeat(-count % size, 0)]) for a in arrays]
    chunks = [[a[i : i + size] for a in padded] for i in range(0, count, size)]
    images = f"{size} image{'s'[: size > 1]} of {height}x{width}"
    with timed(f"compiling {title} for {images} ... ", end=""):
        program = jax.jit(function).lower(net, *chunks[0]).compile()
    with timed(", then ", end=f" for all {count}\n" if count > size else "\n"):
        results = [program(net, *chunk) for chunk in chunks]
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


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
