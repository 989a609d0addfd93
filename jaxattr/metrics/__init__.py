"""How good a map is: the papers' numbers as pure functions, batched and jittable.

A metric of a model takes the model and returns a function, as methods do:

    measure = jaxattr.metrics.insertion(f)
    curve, score, valid = jax.jit(measure)(x, target, attribution)

A metric of maps alone takes arrays. An image that has no score (no ground truth, a map that is not
finite) has NaN, and false in `valid`; `mean` and `class_means` leave it out and say how many are
left.
"""

from jaxattr.metrics.baselines import blur as blur
from jaxattr.metrics.evaluation import activation as activation
from jaxattr.metrics.evaluation import probability as probability
from jaxattr.metrics.insertion import complementary_insertion as complementary_insertion
from jaxattr.metrics.insertion import deletion as deletion
from jaxattr.metrics.insertion import insertion as insertion
from jaxattr.metrics.morf import absolute_change as absolute_change
from jaxattr.metrics.morf import lerf as lerf
from jaxattr.metrics.morf import morf as morf
from jaxattr.metrics.morf import ratio as ratio
from jaxattr.metrics.ranking import magnitude_sum as magnitude_sum
from jaxattr.metrics.ranking import positive_sum as positive_sum
from jaxattr.metrics.results import Curve as Curve
from jaxattr.metrics.results import Score as Score
from jaxattr.metrics.results import class_means as class_means
from jaxattr.metrics.results import mean as mean
