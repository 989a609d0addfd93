"""A function as a program: a flat list of equations, and what can be said of each of its values.

- `primitives`: what is known of every JAX primitive, a row each.
- `interpret`, `control_flow`: a jaxpr as a flat list of equations, and running it again.
- `dataflow`: which values depend on the input, and which equations are one elementwise function.
- `signs`, `ranges`, `degrees`, `slopes`: what is carried along with every value of a program.
"""
