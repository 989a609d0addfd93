"""How good a map is: the papers' numbers as pure functions, batched and jittable.

A metric of a model takes the model and returns a function, as methods do:

    measure = jaxattr.metrics.insertion(f)
    curve, score, valid = jax.jit(measure)(x, target, attribution)

A metric of maps alone takes arrays. An image that has no score (no ground truth, a map that is not
finite) has NaN, and false in `valid`; `mean` and `class_means` leave it out and say how many are
left.
"""

from typing import TYPE_CHECKING, Any

from jaxattr.metrics.axioms import completeness_error as completeness_error
from jaxattr.metrics.axioms import gaussian as gaussian
from jaxattr.metrics.axioms import infidelity as infidelity
from jaxattr.metrics.axioms import max_sensitivity as max_sensitivity
from jaxattr.metrics.axioms import noisy_baseline as noisy_baseline
from jaxattr.metrics.axioms import square as square
from jaxattr.metrics.baselines import blur as blur
from jaxattr.metrics.boundary import boundary_dependency as boundary_dependency
from jaxattr.metrics.boundary import roc_auc as roc_auc
from jaxattr.metrics.boundary import upper_half as upper_half
from jaxattr.metrics.crf import dense_crf as dense_crf
from jaxattr.metrics.ground_truth import VOC_CLASSES as VOC_CLASSES
from jaxattr.metrics.ground_truth import Annotation as Annotation
from jaxattr.metrics.ground_truth import Object as Object
from jaxattr.metrics.ground_truth import annotation as annotation
from jaxattr.metrics.ground_truth import box_masks as box_masks
from jaxattr.metrics.ground_truth import coco_boxes as coco_boxes
from jaxattr.metrics.ground_truth import coco_masks as coco_masks
from jaxattr.metrics.ground_truth import voc_annotation as voc_annotation
from jaxattr.metrics.insertion import complementary_insertion as complementary_insertion
from jaxattr.metrics.insertion import deletion as deletion
from jaxattr.metrics.insertion import insertion as insertion
from jaxattr.metrics.localization import energy_pointing_game as energy_pointing_game
from jaxattr.metrics.localization import point_hits as point_hits
from jaxattr.metrics.localization import pointing_game as pointing_game
from jaxattr.metrics.morf import absolute_change as absolute_change
from jaxattr.metrics.morf import lerf as lerf
from jaxattr.metrics.morf import morf as morf
from jaxattr.metrics.morf import ratio as ratio
from jaxattr.metrics.overlap import above_mean_region as above_mean_region
from jaxattr.metrics.overlap import localization_iou as localization_iou
from jaxattr.metrics.overlap import positive_region as positive_region
from jaxattr.metrics.overlap import segmentation_iou as segmentation_iou
from jaxattr.metrics.ranking import magnitude_sum as magnitude_sum
from jaxattr.metrics.ranking import positive_sum as positive_sum
from jaxattr.metrics.results import Curve as Curve
from jaxattr.metrics.results import Score as Score
from jaxattr.metrics.results import Segmentation as Segmentation
from jaxattr.metrics.results import class_means as class_means
from jaxattr.metrics.results import mean as mean
from jaxattr.metrics.roar import roar as roar
from jaxattr.metrics.sanity import normal as normal
from jaxattr.metrics.sanity import permutation as permutation
from jaxattr.metrics.sanity import randomize_parameters as randomize_parameters
from jaxattr.metrics.similarity import box_window as box_window
from jaxattr.metrics.similarity import gaussian_window as gaussian_window
from jaxattr.metrics.similarity import rank_correlation as rank_correlation
from jaxattr.metrics.similarity import ssim as ssim
from jaxattr.scores import logit as logit
from jaxattr.scores import probability as probability

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from jaxattr.deprecated import renamed

        return renamed("jaxattr.metrics", name)
