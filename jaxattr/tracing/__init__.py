"""How a function is read, in the order in which one file builds on the other.

- `primitives`: what is known of every JAX primitive, a row each.
- `interpret`, `control_flow`: a jaxpr as a flat list of equations, and running it again.
- `dataflow`, `operations`, `statistics`, `folding`: which equations are one operation, and of which
  kind.
- `signs`, `degrees`, `slopes`, `roles`: what is carried along with every value of a program.
- `sites`, `local`, `weights`: the operations as places where a rule can act, and as it sees them.
- `transform`: `with_rules`, which puts other backward passes in place.
- `taps`: places by name, their values, what comes before and after.
- `freeze`, `shifts`: the piecewise-linear view at one input, and what a function adds on its way.
"""
