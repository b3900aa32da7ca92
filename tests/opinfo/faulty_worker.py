"""Speaks as `tests.opinfo.worker` does, and misbehaves as the operator's name asks."""

from __future__ import annotations

import json
import os
import sys
import time

NAMES = ("fine_1", "fine_2", "abort", "fine_3", "hang", "exit", "fine_4")

if __name__ == "__main__":
    print(json.dumps([{"op": name, "dtype": "float32"} for name in NAMES]), flush=True)
    for line in sys.stdin:
        pair = json.loads(line)
        if pair["op"] == "abort":
            print("Assertion `x' failed", file=sys.stderr, flush=True)
            os.abort()
        if pair["op"] == "exit":
            os._exit(3)
        if pair["op"] == "hang":
            time.sleep(600)
        print(json.dumps({**pair, "status": "ok", "strict": True, "graphs": os.getpid()}), flush=True)
