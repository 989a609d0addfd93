"""Attribution maps for image classifiers as function transformations in JAX.

Every method takes a classifier and returns a function that explains it:

    attribute = jaxattr.guided_backprop(f)  # f: images (B, H, W, C) -> logits (B, K)
    maps = jax.jit(attribute)(x, target)  # target: classes (B,)
"""

from jaxattr import metrics as metrics
from jaxattr.backprop import deconvnet as deconvnet
from jaxattr.backprop import guided_backprop as guided_backprop
from jaxattr.batching import batched as batched
from jaxattr.blur_ig import blur_integrated_gradients as blur_integrated_gradients
from jaxattr.cameras import cameras as cameras
from jaxattr.cams import grad_cam as grad_cam
from jaxattr.cams import grad_cam_plus_plus as grad_cam_plus_plus
from jaxattr.cams import guided_grad_cam as guided_grad_cam
from jaxattr.deeplift import deeplift as deeplift
from jaxattr.deeplift import deeplift_layers as deeplift_layers
from jaxattr.dmbp import dmbp as dmbp
from jaxattr.dmbp import dmbp_decompose as dmbp_decompose
from jaxattr.excitation import contrastive_excitation_backprop as contrastive_excitation_backprop
from jaxattr.excitation import contrastive_excitation_layers as contrastive_excitation_layers
from jaxattr.excitation import excitation_backprop as excitation_backprop
from jaxattr.excitation import excitation_layers as excitation_layers
from jaxattr.extremal_perturbation import extremal_perturbation as extremal_perturbation
from jaxattr.extremal_perturbation import extremal_perturbation_fit as extremal_perturbation_fit
from jaxattr.fullgrad import fullgrad as fullgrad
from jaxattr.fullgrad import fullgrad_decompose as fullgrad_decompose
from jaxattr.gradients import input_x_gradient as input_x_gradient
from jaxattr.gradients import saliency as saliency
from jaxattr.guided_ig import guided_integrated_gradients as guided_integrated_gradients
from jaxattr.lpr import lpr as lpr
from jaxattr.lpr import lpr_fit as lpr_fit
from jaxattr.maps import heatmap as heatmap
from jaxattr.meaningful_perturbation import meaningful_perturbation as meaningful_perturbation
from jaxattr.meaningful_perturbation import (
    meaningful_perturbation_fit as meaningful_perturbation_fit,
)
from jaxattr.noise import smooth as smooth
from jaxattr.noise import smooth_squared as smooth_squared
from jaxattr.noise import variance as variance
from jaxattr.paths import integrated_gradients as integrated_gradients
from jaxattr.perturbations import occlusion as occlusion
from jaxattr.perturbations import rise as rise
from jaxattr.rap import rap as rap
from jaxattr.rap import rap_layers as rap_layers
from jaxattr.relevance import conservation as conservation
from jaxattr.relevance import lrp as lrp
from jaxattr.relevance import lrp_layers as lrp_layers
from jaxattr.rsp import contrastive_rsp as contrastive_rsp
from jaxattr.rsp import rsp as rsp
from jaxattr.rsp import rsp_relevance as rsp_relevance
from jaxattr.score_cam import score_cam as score_cam
from jaxattr.tr_gbp import tr_gbp as tr_gbp
from jaxattr.tr_gbp import tr_gbp_layers as tr_gbp_layers
from jaxattr.tracing.freeze import freeze as freeze
from jaxattr.tracing.layers import taps as taps
from jaxattr.tracing.local import UnsupportedOperation as UnsupportedOperation
from jaxattr.tracing.rewrite import with_rules as with_rules
from jaxattr.tracing.sites import sites as sites
from jaxattr.types import Attribution as Attribution
from jaxattr.types import Explanation as Explanation
from jaxattr.types import Fun as Fun
from jaxattr.xrai import xrai as xrai
