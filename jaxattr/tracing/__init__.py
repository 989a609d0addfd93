"""How a function is read, in the order in which one file builds on the other.

- `interpret`, `loops`: a jaxpr as a flat list of equations, and running it again.
- `elementwise`, `kinds`, `affine`: which equations are one operation, and of which kind.
- `sites`: the operations as places where a rule can act.
- `slopes`, `homogeneity`: the derivative of an activation, however it is spelled.
- `lowering`: convolutions and pools that XLA runs fast on the CPU.
- `rewrite`: `with_rules`, which puts other backward passes in place.
- `layers`: places by name, their values, what comes before and after.
- `freeze`: the piecewise-linear view at one input.
"""
