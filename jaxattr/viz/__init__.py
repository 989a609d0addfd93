"""Figures of attribution maps: their colors, files, and what a notebook lets one touch."""

from jaxattr.viz.blending import interactive as interactive
from jaxattr.viz.colors import PERCENTILE as PERCENTILE
from jaxattr.viz.colors import POSITIVE as POSITIVE
from jaxattr.viz.colors import SIGNED as SIGNED
from jaxattr.viz.colors import overlay as overlay
from jaxattr.viz.colors import paint as paint
from jaxattr.viz.colors import scale as scale
from jaxattr.viz.figures import figure as figure
