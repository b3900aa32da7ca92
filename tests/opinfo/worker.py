"""A process that judges pairs one by one: requests as JSON lines on stdin, answers as JSON lines on stdout.

The first line of output, before any request, is the list of pairs. Whatever operators and compilers print
goes to stderr.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import logging
import os
import sys
import time

import torch

from tests.opinfo.cases import Database, Pair, Verdict, describe, judge, note_graphs_compiled_here


def main(backend: str, count: int, threads: int, mode: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    faulthandler.enable()
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    if mode:
        os.environ["BRAZE_FX_COMPILE_MODE"] = mode
        note_graphs_compiled_here()
    database = Database()
    print(json.dumps([dataclasses.asdict(pair) for pair in database.pairs()]), file=answers)
    for line in sys.stdin:
        pair = Pair(**json.loads(line))
        started = time.perf_counter()
        try:
            verdict = judge(database, pair, backend, count)
        except Exception as error:  # The database itself could not make its samples.
            verdict = Verdict(pair.op, pair.dtype, "no sample", reason=describe(error))
        verdict.seconds = round(time.perf_counter() - started, 3)
        print(json.dumps(dataclasses.asdict(verdict)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
