"""What a metric asks of a model and of its input."""

from jaxattr.contract import check_images, check_targets, count_classes
from jaxattr.loops.variants import evaluate_variants
from jaxattr.scores import Score as Output
from jaxattr.scores import logit as activation
from jaxattr.scores import probability as probability
from jaxattr.types import Array, Fun

__all__ = ["Output", "activation", "check_batch", "evaluate_variants", "probability"]


def check_batch(f: Fun, x: Array, target: Array) -> None:
    """Raise `ValueError` unless `x` and `target` are what `f` can answer for."""
    check_images(x)
    check_targets(target, x.shape[0], count_classes(f, x))
