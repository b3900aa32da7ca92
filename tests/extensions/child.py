"""What processes of `test_keys` run: a file that registers something, and a function; prints what that gave,
and what had to be done for it."""

from __future__ import annotations

import json
import runpy
import sys

import torch
from torch._dynamo.utils import counters

from tests.extensions.library import ops


def main() -> None:
    file, function = sys.argv[1:]
    runpy.run_path(file)
    calls = {"operator": lambda x: ops.swish(x, 1.0) + 1, "plain": lambda x: x.sin() + 1}
    result = torch.compile(calls[function], backend="braze", options={"strict": True})(torch.ones(6))
    seen = {
        "result": result[0].item(),
        "traced": counters["aot_autograd"]["total"],
        "compiled": "braze.compile.pipeline" in sys.modules,
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
