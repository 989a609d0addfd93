"""Arrays to arrays: what is done to images, maps and masks. No model is known here.

- `maps`: channels and scale of attribution maps, and what the other files offer for maps.
- `filters`: Gaussians and other separable filters, with the border of your choice.
- `resize`: bilinear and cubic interpolation.
- `masks`: masks made of grids. `smooth_masks`: masks that are smooth and have a given area.
- `pyramids`: images as they are taken away, level by level.
- `order`: ranks and order statistics.
- `linear`: a matrix along an axis of an array, which filters and interpolation have in common.
"""
