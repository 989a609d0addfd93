"""Attribution maps for image classifiers as function transformations in JAX.

Every method takes a classifier and returns a function that explains it:

    attribute = jaxattr.guided_backprop(f)  # f: images (B, H, W, C) -> logits (B, K)
    maps = jax.jit(attribute)(x, target)  # target: classes (B,)
"""

from typing import TYPE_CHECKING, Any

from jaxattr import metrics as metrics
from jaxattr import rules as rules
from jaxattr import scores as scores
from jaxattr.citations import cite as cite
from jaxattr.facts import Facts as Facts
from jaxattr.facts import method as method
from jaxattr.image import maps as maps
from jaxattr.image.maps import heatmap as heatmap
from jaxattr.loops.batching import batched as batched
from jaxattr.loops.progress import Progress as Progress
from jaxattr.methods.ablation_cam import ablation_cam as ablation_cam
from jaxattr.methods.attention_rollout import attention_rollout as attention_rollout
from jaxattr.methods.augmented import augmented as augmented
from jaxattr.methods.augmented import ensemble as ensemble
from jaxattr.methods.blur_integrated_gradients import (
    blur_integrated_gradients as blur_integrated_gradients,
)
from jaxattr.methods.cameras import cameras as cameras
from jaxattr.methods.concept_relevance import concept_relevance as concept_relevance
from jaxattr.methods.conductance import conductance as conductance
from jaxattr.methods.conductance import internal_influence as internal_influence
from jaxattr.methods.conservation import conservation as conservation
from jaxattr.methods.contrastive_excitation_backprop import (
    contrastive_excitation_backprop as contrastive_excitation_backprop,
)
from jaxattr.methods.contrastive_excitation_backprop import (
    contrastive_excitation_backprop_details as contrastive_excitation_backprop_details,
)
from jaxattr.methods.contrastive_rsp import contrastive_rsp as contrastive_rsp
from jaxattr.methods.contrastive_rsp import contrastive_rsp_details as contrastive_rsp_details
from jaxattr.methods.deconvnet import deconvnet as deconvnet
from jaxattr.methods.deep_shap import deep_shap as deep_shap
from jaxattr.methods.deeplift import deeplift as deeplift
from jaxattr.methods.deeplift import deeplift_details as deeplift_details
from jaxattr.methods.dmbp import dmbp as dmbp
from jaxattr.methods.dmbp import dmbp_details as dmbp_details
from jaxattr.methods.eigen_cam import eigen_cam as eigen_cam
from jaxattr.methods.eigen_grad_cam import eigen_grad_cam as eigen_grad_cam
from jaxattr.methods.excitation_backprop import excitation_backprop as excitation_backprop
from jaxattr.methods.excitation_backprop import (
    excitation_backprop_details as excitation_backprop_details,
)
from jaxattr.methods.expected import expected as expected
from jaxattr.methods.extremal_perturbation import extremal_perturbation as extremal_perturbation
from jaxattr.methods.extremal_perturbation import (
    extremal_perturbation_details as extremal_perturbation_details,
)
from jaxattr.methods.feature_ablation import feature_ablation as feature_ablation
from jaxattr.methods.finer_cam import finer_cam as finer_cam
from jaxattr.methods.fullgrad import fullgrad as fullgrad
from jaxattr.methods.fullgrad import fullgrad_details as fullgrad_details
from jaxattr.methods.generic_attention import generic_attention as generic_attention
from jaxattr.methods.grad_cam import grad_cam as grad_cam
from jaxattr.methods.grad_cam_plus_plus import grad_cam_plus_plus as grad_cam_plus_plus
from jaxattr.methods.gradient_attention import gradient_attention as gradient_attention
from jaxattr.methods.gradient_shap import gradient_shap as gradient_shap
from jaxattr.methods.guided_backprop import guided_backprop as guided_backprop
from jaxattr.methods.guided_grad_cam import guided_grad_cam as guided_grad_cam
from jaxattr.methods.guided_integrated_gradients import (
    guided_integrated_gradients as guided_integrated_gradients,
)
from jaxattr.methods.hires_cam import hires_cam as hires_cam
from jaxattr.methods.hsic_attribution import hsic_attribution as hsic_attribution
from jaxattr.methods.input_x_gradient import input_x_gradient as input_x_gradient
from jaxattr.methods.inside import channels as channels
from jaxattr.methods.inside import inside as inside
from jaxattr.methods.inside import several_inputs as several_inputs
from jaxattr.methods.integrated_gradients import integrated_gradients as integrated_gradients
from jaxattr.methods.kernel_shap import kernel_shap as kernel_shap
from jaxattr.methods.layer_cam import layer_cam as layer_cam
from jaxattr.methods.libragrad import libragrad as libragrad
from jaxattr.methods.lime import lime as lime
from jaxattr.methods.lpr import lpr as lpr
from jaxattr.methods.lpr import lpr_details as lpr_details
from jaxattr.methods.lrp import lrp as lrp
from jaxattr.methods.lrp import lrp_details as lrp_details
from jaxattr.methods.meaningful_perturbation import (
    meaningful_perturbation as meaningful_perturbation,
)
from jaxattr.methods.meaningful_perturbation import (
    meaningful_perturbation_details as meaningful_perturbation_details,
)
from jaxattr.methods.occlusion import occlusion as occlusion
from jaxattr.methods.rap import rap as rap
from jaxattr.methods.rap import rap_details as rap_details
from jaxattr.methods.rise import rise as rise
from jaxattr.methods.rsp import rsp as rsp
from jaxattr.methods.rsp import rsp_details as rsp_details
from jaxattr.methods.saliency import saliency as saliency
from jaxattr.methods.score_cam import score_cam as score_cam
from jaxattr.methods.shapley_cam import shapley_cam as shapley_cam
from jaxattr.methods.shapley_sampling import shapley_sampling as shapley_sampling
from jaxattr.methods.smoothgrad import smoothgrad as smoothgrad
from jaxattr.methods.smoothgrad_squared import smoothgrad_squared as smoothgrad_squared
from jaxattr.methods.sobol_attribution import sobol_attribution as sobol_attribution
from jaxattr.methods.tr_gbp import tr_gbp as tr_gbp
from jaxattr.methods.tr_gbp import tr_gbp_details as tr_gbp_details
from jaxattr.methods.transformer_attribution import (
    transformer_attribution as transformer_attribution,
)
from jaxattr.methods.vargrad import vargrad as vargrad
from jaxattr.methods.xgrad_cam import xgrad_cam as xgrad_cam
from jaxattr.methods.xrai import xrai as xrai
from jaxattr.programs.primitives import register as register
from jaxattr.rules.composites import Composite as Composite
from jaxattr.rules.propagation import Relevance as Relevance
from jaxattr.scores import Score as Score
from jaxattr.scores import scalar as scalar
from jaxattr.tracing.freeze import freeze as freeze
from jaxattr.tracing.local import Local as Local
from jaxattr.tracing.local import Rule as Rule
from jaxattr.tracing.local import UnsupportedOperation as UnsupportedOperation
from jaxattr.tracing.sites import Site as Site
from jaxattr.tracing.sites import sites as sites
from jaxattr.tracing.taps import taps as taps
from jaxattr.tracing.transform import lowered as lowered
from jaxattr.tracing.transform import with_rules as with_rules
from jaxattr.types import Attribution as Attribution
from jaxattr.types import Baseline as Baseline
from jaxattr.types import Explanation as Explanation
from jaxattr.types import Fun as Fun
from jaxattr.types import Init as Init

__version__: str

_LAZY = ("data", "models", "runner", "viz")
"""Rooms that `import jaxattr` does not load: they bring Flax, Pillow or matplotlib."""

if not TYPE_CHECKING:  # a type checker is to see the names above and no others

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            return version("jaxattr")
        if name in _LAZY:
            from importlib import import_module

            return import_module(f"jaxattr.{name}")
        from jaxattr.deprecated import renamed

        return renamed("jaxattr", name)
