"""How good a map is: the papers' numbers as pure functions, batched and jittable.

A metric of a model takes the model and returns a function, as methods do:

    measure = jaxattr.metrics.insertion(f)
    curve, score, valid = jax.jit(measure)(x, target, attribution)

A metric of maps alone takes arrays. An image that has no score (no ground truth, a map that is not
finite) has NaN, and false in `valid`; `mean` and `class_means` leave it out and say how many are
left.

Metrics of a model:

- `insertion_and_deletion`: insertion, deletion, complementary_insertion. `morf_and_lerf`: morf,
  lerf, srg. `regions`: region_perturbation, selectivity, irof. `imputation`: road. What these have
  in common is in `perturbation_curve`, the start of insertion in `baselines`.
- `faithfulness`: faithfulness_correlation, sensitivity_n, faithfulness_estimate, idsds.
  `monotonicities`: monotonicity, monotonicity_correlation, non_sensitivity. Both ask what subsets
  of the pixels do, in `subset_effects`. `drop_and_gain`: average_drop, average_increase,
  average_gain.
- `completeness`: completeness_error. `infidelities`: infidelity. `roar_and_kar`: roar.

Metrics of a method:

- `stability`: max_sensitivity, average_sensitivity, local_lipschitz_estimate, continuity.
  `relative_stability`: relative_input_stability, relative_representation_stability,
  relative_output_stability.
- `randomization`: randomize_parameters. `sanity_of_methods`: random_logit, mprt, efficient_mprt,
  input_invariance.

Metrics of maps:

- `pointing_games`: pointing_game, energy_pointing_game, point_hits. `grid_pointing`:
  grid_pointing_game, focus, on grids of images that `grids` makes, with difull and dipart. `iou`:
  localization_iou, segmentation_iou. `crf`: dense_crf, which refines regions.
- `relevance_accuracy`: relevance_mass_accuracy, relevance_rank_accuracy, top_k_intersection,
  attribution_auc. `conciseness`: sparseness, complexity, effective_complexity. `agreement`:
  consistency, sufficiency.
- `boundary`: boundary_dependency. `roc`: roc_auc. `similarity`: rank_correlation, ssim.

Around them: `annotations` reads boxes and masks, `alignment` brings maps to their size,
`arguments` checks what metrics are given, `reductions` turns channels into one number,
`correlation` has correlations, `results` what metrics return, and means. Maps may be of any real
dtype: all is computed in at least float32.
"""

from typing import TYPE_CHECKING, Any

from jaxattr.data.classes import VOC as VOC_CLASSES
from jaxattr.data.objects import coco_boxes as coco_boxes
from jaxattr.data.objects import coco_masks as coco_masks
from jaxattr.metrics.agreement import consistency as consistency
from jaxattr.metrics.agreement import sufficiency as sufficiency
from jaxattr.metrics.annotations import Annotation as Annotation
from jaxattr.metrics.annotations import Object as Object
from jaxattr.metrics.annotations import annotation as annotation
from jaxattr.metrics.annotations import box_masks as box_masks
from jaxattr.metrics.annotations import record_annotation as record_annotation
from jaxattr.metrics.annotations import voc_annotation as voc_annotation
from jaxattr.metrics.baselines import blur as blur
from jaxattr.metrics.boundary import boundary_dependency as boundary_dependency
from jaxattr.metrics.boundary import upper_half as upper_half
from jaxattr.metrics.completeness import completeness_error as completeness_error
from jaxattr.metrics.conciseness import complexity as complexity
from jaxattr.metrics.conciseness import effective_complexity as effective_complexity
from jaxattr.metrics.conciseness import sparseness as sparseness
from jaxattr.metrics.crf import dense_crf as dense_crf
from jaxattr.metrics.drop_and_gain import average_drop as average_drop
from jaxattr.metrics.drop_and_gain import average_gain as average_gain
from jaxattr.metrics.drop_and_gain import average_increase as average_increase
from jaxattr.metrics.faithfulness import faithfulness_correlation as faithfulness_correlation
from jaxattr.metrics.faithfulness import faithfulness_estimate as faithfulness_estimate
from jaxattr.metrics.faithfulness import idsds as idsds
from jaxattr.metrics.faithfulness import sensitivity_n as sensitivity_n
from jaxattr.metrics.grid_pointing import focus as focus
from jaxattr.metrics.grid_pointing import grid_pointing_game as grid_pointing_game
from jaxattr.metrics.grids import difull as difull
from jaxattr.metrics.grids import dipart as dipart
from jaxattr.metrics.grids import image_grids as image_grids
from jaxattr.metrics.imputation import linear_imputation as linear_imputation
from jaxattr.metrics.imputation import road as road
from jaxattr.metrics.infidelities import gaussian as gaussian
from jaxattr.metrics.infidelities import infidelity as infidelity
from jaxattr.metrics.infidelities import noisy_baseline as noisy_baseline
from jaxattr.metrics.infidelities import square as square
from jaxattr.metrics.insertion_and_deletion import (
    complementary_insertion as complementary_insertion,
)
from jaxattr.metrics.insertion_and_deletion import deletion as deletion
from jaxattr.metrics.insertion_and_deletion import insertion as insertion
from jaxattr.metrics.iou import above_mean_region as above_mean_region
from jaxattr.metrics.iou import localization_iou as localization_iou
from jaxattr.metrics.iou import positive_region as positive_region
from jaxattr.metrics.iou import segmentation_iou as segmentation_iou
from jaxattr.metrics.monotonicities import monotonicity as monotonicity
from jaxattr.metrics.monotonicities import monotonicity_correlation as monotonicity_correlation
from jaxattr.metrics.monotonicities import non_sensitivity as non_sensitivity
from jaxattr.metrics.morf_and_lerf import absolute_change as absolute_change
from jaxattr.metrics.morf_and_lerf import lerf as lerf
from jaxattr.metrics.morf_and_lerf import morf as morf
from jaxattr.metrics.morf_and_lerf import ratio as ratio
from jaxattr.metrics.morf_and_lerf import srg as srg
from jaxattr.metrics.pointing_games import energy_pointing_game as energy_pointing_game
from jaxattr.metrics.pointing_games import point_hits as point_hits
from jaxattr.metrics.pointing_games import pointing_game as pointing_game
from jaxattr.metrics.randomization import normal as normal
from jaxattr.metrics.randomization import permutation as permutation
from jaxattr.metrics.randomization import randomize_parameters as randomize_parameters
from jaxattr.metrics.reductions import magnitude_sum as magnitude_sum
from jaxattr.metrics.reductions import positive_sum as positive_sum
from jaxattr.metrics.regions import irof as irof
from jaxattr.metrics.regions import region_perturbation as region_perturbation
from jaxattr.metrics.regions import selectivity as selectivity
from jaxattr.metrics.relative_stability import relative_input_stability as relative_input_stability
from jaxattr.metrics.relative_stability import (
    relative_output_stability as relative_output_stability,
)
from jaxattr.metrics.relative_stability import (
    relative_representation_stability as relative_representation_stability,
)
from jaxattr.metrics.relevance_accuracy import attribution_auc as attribution_auc
from jaxattr.metrics.relevance_accuracy import relevance_mass_accuracy as relevance_mass_accuracy
from jaxattr.metrics.relevance_accuracy import relevance_rank_accuracy as relevance_rank_accuracy
from jaxattr.metrics.relevance_accuracy import top_k_intersection as top_k_intersection
from jaxattr.metrics.results import Curve as Curve
from jaxattr.metrics.results import Score as Score
from jaxattr.metrics.results import Segmentation as Segmentation
from jaxattr.metrics.results import class_means as class_means
from jaxattr.metrics.results import mean as mean
from jaxattr.metrics.roar_and_kar import roar as roar
from jaxattr.metrics.roc import roc_auc as roc_auc
from jaxattr.metrics.sanity_of_methods import efficient_mprt as efficient_mprt
from jaxattr.metrics.sanity_of_methods import input_invariance as input_invariance
from jaxattr.metrics.sanity_of_methods import mprt as mprt
from jaxattr.metrics.sanity_of_methods import random_logit as random_logit
from jaxattr.metrics.similarity import box_window as box_window
from jaxattr.metrics.similarity import gaussian_window as gaussian_window
from jaxattr.metrics.similarity import rank_correlation as rank_correlation
from jaxattr.metrics.similarity import ssim as ssim
from jaxattr.metrics.stability import average_sensitivity as average_sensitivity
from jaxattr.metrics.stability import continuity as continuity
from jaxattr.metrics.stability import local_lipschitz_estimate as local_lipschitz_estimate
from jaxattr.metrics.stability import max_sensitivity as max_sensitivity
from jaxattr.scores import logit as logit
from jaxattr.scores import probability as probability
from jaxattr.scores import sigmoid as sigmoid

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from jaxattr.deprecated import renamed

        return renamed("jaxattr.metrics", name)
