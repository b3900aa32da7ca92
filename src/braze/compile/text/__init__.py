"""Requests to compile as text that people can read and a parser reads back: what compile workers are sent,
what the ``debug-file`` mode writes, and what the cache's keys are made of.

::

    braze graph 1

    [request]
    kind            = inference
    graph           = 0
    visible outputs = 1

    [symbols]
    s77 in [2, inf) hint 8

    [graph]
    %arg0_1 : int{s77}     = input
    %arg1_1 : f32[s77, 16] = input static
    %sum_1  : f32[s77]     = aten::sum.dim_IntList(%arg1_1, [1])  # model.py:7: return x.sum(1) * 2
    %mul    : f32[s77]     = aten::mul.Tensor(%sum_1, 2)          # "
    return (%mul,)

`vocabulary` has the words, `expressions` the symbolic numbers, `values` arguments and metadata, `graphs` the
rows, `printer` the whole; `lexer`, `expression_parser`, `value_parser`, `graph_parser` and `parser` read them
back. Tensors that a graph holds travel beside the text (`constants`).
"""
