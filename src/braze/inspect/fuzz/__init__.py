"""Random PyTorch programs, run eagerly and compiled, and compared: `braze fuzz`.

====================  ================================================================================
file                  subject
====================  ================================================================================
`program`             a program as data, and as text
`operands`            how an argument of an operator is drawn
`table`               the operators, in one file for each family
`draft`, `generate`   a program from a seed, tried eagerly statement by statement
`execute`             a program run: eagerly, in float64, or by a backend
`compare`             results of two runs side by side, as problems
`judge`               what came of a program: it agrees, it is undecidable, or it is a fault
`jobs`                these as jobs of worker processes
`shrink`              a smaller program with the same fault
`script`              a program as a script that stands alone
`campaign`            many programs in worker processes under watch, and their account
====================  ================================================================================
"""
