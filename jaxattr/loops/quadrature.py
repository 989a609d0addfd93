"""Quadrature rules: where to evaluate an integrand on [0, 1], and with which weights."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np


class Nodes(NamedTuple):
    """Where on [0, 1] an integrand is evaluated, and with what weights; these sum to one."""

    points: np.ndarray
    weights: np.ndarray


Quadrature: TypeAlias = Callable[[int], Nodes]
"""From a number of evaluations to nodes and weights."""


def gauss_legendre(steps: int) -> Nodes:
    """Gauss-Legendre quadrature: exact for polynomials of degree `2 * steps - 1`.

    >>> points, weights = gauss_legendre(3)
    >>> round(float((weights * points**5).sum()), 12)
    0.166666666667
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    return Nodes((points + 1) / 2, weights / 2)


def midpoint(steps: int) -> Nodes:
    """Midpoints of `steps` equal intervals; the error falls as `steps**-2`."""
    return Nodes((np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps))


def left_riemann(steps: int) -> Nodes:
    """Left ends of `steps` equal intervals; the error falls as `1 / steps`."""
    return Nodes(np.arange(steps) / steps, np.full(steps, 1 / steps))


def right_riemann(steps: int) -> Nodes:
    """Right ends of `steps` equal intervals, as in the paper; the error falls as `1 / steps`."""
    return Nodes(np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps))


def trapezoid(steps: int) -> Nodes:
    """Both ends and what lies between, `steps` points in all; the error falls as `steps**-2`."""
    if steps < 2:
        raise ValueError(f"steps is {steps}; the trapezoid rule needs both ends, at least 2")
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return Nodes(np.linspace(0, 1, steps), weights)


def quasi_random(points: int, dimensions: int) -> np.ndarray:
    """Return the first points of the Sobol sequence after 0, `(points, dimensions)` in (0, 1).

    They fill the cube more evenly than random numbers do, most so for a power of 2 of them.

    >>> quasi_random(3, 2).tolist()
    [[0.5, 0.5], [0.75, 0.25], [0.25, 0.75]]
    """
    from scipy.stats.qmc import Sobol  # as slow to import as JAX

    sequence = Sobol(dimensions, scramble=False)
    return sequence.random_base2(points.bit_length())[1 : points + 1]
