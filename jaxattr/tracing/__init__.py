"""Functions with named places, run with other derivatives.

- `sites`, `local`, `weights`: the operations as places where a rule can act, and as it sees them.
- `transform`: `with_rules`, which puts other backward passes in place.
- `taps`: places by name, their values, what comes before and after.
- `freeze`, `shifts`, `attending`: the piecewise-linear view at one input, what a function adds on
  its way, and its attention weights.
"""
