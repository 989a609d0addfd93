"""Quadrature rules: what they integrate exactly, and the order of their errors."""

import numpy as np
import pytest

from jaxattr.loops.quadrature import (
    gauss_legendre,
    left_riemann,
    midpoint,
    right_riemann,
    trapezoid,
)

ORDERS = {left_riemann: 1, right_riemann: 1, midpoint: 2, trapezoid: 2}
every_rule = pytest.mark.parametrize("rule", [gauss_legendre, *ORDERS])


@every_rule
def test_weights_sum_to_one_and_points_lie_in_the_interval(rule):
    points, weights = rule(7)
    assert points.shape == weights.shape == (7,)
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (np.diff(points) > 0).all()
    assert 0 <= points[0] < points[-1] <= 1


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_legendre_is_exact_up_to_its_degree(steps):
    points, weights = gauss_legendre(steps)
    for degree in range(2 * steps):
        assert weights @ points**degree == pytest.approx(1 / (degree + 1), rel=1e-12)
    assert weights @ points ** (2 * steps) != pytest.approx(1 / (2 * steps + 1), rel=1e-12)


@pytest.mark.parametrize(("rule", "order"), ORDERS.items())
def test_errors_fall_with_their_order(rule, order):
    errors = []
    for intervals in (50, 100):
        points, weights = rule(intervals + (rule is trapezoid))
        errors.append(abs(weights @ np.exp(points) - (np.e - 1)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_the_trapezoid_rule_needs_both_ends():
    with pytest.raises(ValueError, match="steps is 1; the trapezoid rule needs both ends"):
        trapezoid(1)
