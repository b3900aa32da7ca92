"""A process that sweeps operators one by one; it speaks as `tests.opinfo.worker` does.

Its arguments: the levels, separated by commas; argument sets for each operator; threads; the file in which
the first worker leaves the recorded calls for others."""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import logging
import os
import sys
import time
from pathlib import Path

import torch

from tests.opinfo.cases import Pair, describe
from tests.sweep.calls import Calls
from tests.sweep.judge import DTYPES, Swept, operators, sweep


def main(levels: str, count: int, threads: int, path: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    faulthandler.enable()
    logging.disable(logging.ERROR)  # what a fake version refuses is logged as an error
    torch.set_num_threads(threads)
    by_name = {str(op): op for op in operators()}
    calls = Calls.kept_in(Path(path), by_name.values())
    pairs = [Pair(name, dtype) for name in by_name for dtype in DTYPES]
    print(json.dumps([dataclasses.asdict(pair) for pair in pairs]), file=answers)
    for line in sys.stdin:
        pair = Pair(**json.loads(line))
        started = time.perf_counter()
        op, dtype = by_name[pair.op], DTYPES[pair.dtype]
        swept = Swept(pair.op, pair.dtype)
        refused = calls.refused(op) if dtype is torch.float32 else []
        try:
            sweep(swept, op, calls.accepted(op, dtype, count), refused, levels.split(","))
        except Exception as error:
            swept.status, swept.reason = "broken", describe(error)
        if swept.status == "ok" and not swept.compared:
            swept.status = "not reached"
        swept.seconds = round(time.perf_counter() - started, 3)
        print(json.dumps(dataclasses.asdict(swept)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
