"""Graphs that are compiled again, and what they were compiled to: a change of the compiler's structure shows
here that it changed nothing else.

`graphs/` holds requests to compile, as text. `expected/` holds what came of each: the schedule with its
kernels, for two widths of vectors the loop plan and a count of the instructions of each kernel, and the
launch plan. No machine code is made and nothing is run.

    python dev.py replay              compare, and show what differs
    python dev.py replay --update     take what comes of them today as expected
    python dev.py replay --record     write the requests anew, from tests/replay/subjects.py
"""
