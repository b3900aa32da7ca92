"""Requests to compile as text that people can read and that is Python: what compile workers are sent, what
the ``debug-file`` mode writes, and what the cache's keys are made of. It is never run: `ast` reads it.

::

    # braze graph 2
    request(kind='inference', graph=0, visible_outputs=1)
    s77 = integer(least=2, hint=8)

    def forward(arg0_1: int(s77), arg1_1: f32[s77, 16] & static):
        # model.py:7: return x.sum(1) * 2
        sum_1: f32[s77] = aten.sum.dim_IntList(arg1_1, [1])
        mul: f32[s77] = aten.mul.Tensor(sum_1, 2)
        return (mul,)

`vocabulary` has the words, `expressions` the symbolic numbers, `graphs` prints functions, `printer` all of
it; `source` makes a tree of a text, and `parser` a request of the tree. Tensors that a graph holds travel
beside the text (`constants`).
"""
