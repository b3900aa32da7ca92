"""A second cache level that keeps compiled graphs in memory, as the objects that they are."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from braze import config
from braze._torch import dynamo
from braze.artifact.output_code import OpaqueCode, OutputCode
from braze.compile.eager_graph import run_eagerly
from braze.compile.fx_compile import CompileRequest, FxCompile
from braze.compile.in_process import InProcessFxCompile
from braze.errors import ArtifactError
from braze.frontend import level2
from braze.frontend.aot import compile_parts
from braze.frontend.dynamo_key import DynamoKey
from braze.frontend.level2 import Entry
from braze.frontend.recording import Recording


class _Kept(OpaqueCode):
    def __init__(self, code: OutputCode, number: bytes) -> None:
        super().__init__(code.name, code.run, code.output_strides)
        self.number = number

    def prepare_for_serialization(self) -> bytes:
        return self.number


class Eager:
    """A compiler that runs graphs by eager operators, quickly made."""

    def compile(self, request: CompileRequest) -> OutputCode:
        return run_eagerly(request, None)


@dataclass
class MemoryEntries:
    """Also the compiler, since what it stores stays in the process. ``stored`` and ``hits`` count by key."""

    compiler: FxCompile = field(default_factory=Eager)
    entries: dict[tuple[tuple[str, str], ...], list[Entry]] = field(default_factory=dict)
    codes: dict[bytes, OutputCode] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    loads: Counter[str] = field(default_factory=Counter)
    numbers: Iterable[int] = field(default_factory=itertools.count)

    def compile(self, request: CompileRequest) -> OutputCode:
        self.kinds[request.kind] += 1
        code = self.compiler.compile(request)
        number = str(next(iter(self.numbers))).encode()
        self.codes[number] = code
        return _Kept(code, number)

    def find(self, key: DynamoKey) -> list[Entry]:
        return self.entries.get(key.parts, [])

    def add(self, key: DynamoKey, entry: Entry) -> None:
        self.entries.setdefault(key.parts, []).insert(0, entry)

    def load(self, data: bytes) -> OutputCode:
        if data not in self.codes:
            raise ArtifactError("no such code")
        self.loads[self.codes[data].name] += 1
        return self.codes[data]

    def __call__(self, gm: Any, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        options = config.current()
        key = level2.key_of(gm, example_inputs, options)
        found = None if key is None else level2.find(self, key, gm)
        if found is not None:
            return dynamo.untraced(found)
        recording = None if key is None else Recording(self, key, gm)
        return compile_parts(gm, example_inputs, options, self, recording)

    @property
    def stored(self) -> int:
        return sum(map(len, self.entries.values()))


def real() -> MemoryEntries:
    """Entries of compiled code."""
    return MemoryEntries(InProcessFxCompile())


def twice(
    fn: Callable[..., Any], entries: MemoryEntries, use: Callable[[Callable[..., Any]], Any], **options: Any
) -> list[Any]:
    """What `use` gives for `fn` eagerly, compiled, and from the entries that the compilation left. Fails
    unless the last one compiles nothing."""
    eager = use(fn)
    torch.compiler.reset()
    missed = use(torch.compile(fn, backend=entries, **options))
    compiled = dict(entries.kinds)
    torch.compiler.reset()
    hit = use(torch.compile(fn, backend=entries, **options))
    assert dict(entries.kinds) == compiled, "the second time something was compiled"
    assert entries.loads
    return [eager, missed, hit]
