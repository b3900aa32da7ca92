"""From a script that goes wrong to the smallest graph that does: `braze minify`.

====================  ================================================================================
file                  subject
====================  ================================================================================
`watch`               a script run as eager PyTorch runs it, in a process of its own; its graphs are noted
`translate`           a graph of operators and what it was called with, as a program of `braze.inspect.fuzz`
`cut`                 parts of a program by themselves, given what eager PyTorch computes in front of them
`minifying`           the first graph with a fault, and the smallest program that has it still
====================  ================================================================================

What judges a program, shrinks it and prints it is that of `braze.inspect.fuzz`.
"""
