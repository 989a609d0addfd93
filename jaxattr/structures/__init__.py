"""What equations are in a network, in the order in which one file builds on the other.

- `operations`, `statistics`: which equations are one operation, and of which kind; norms.
- `folding`: a layer with the bias and the BatchNorm that follow it.
- `softmaxes`, `factors`: attention and gates, and which side of a product can be held.
- `roles`, `tokens`: what the axes of a value are, and where the tokens of an image lie.
- `features`: which value is the last feature maps.
"""
