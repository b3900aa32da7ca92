"""From a launch plan to one Python function.

The function's source is straight-line and can be read (``function.source``): operators and machine code are
bound when it is made, sizes are written out where they are known, and there is no dispatch on instructions.
What a call costs beyond its kernels is what stands there.
"""

from __future__ import annotations

import itertools
import keyword
import linecache
import struct
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import CodeType
from typing import Any, Final, TypeAlias, cast

import torch

from braze._torch import native
from braze._torch.number_functions import NUMBER_FUNCTIONS
from braze.dtypes import torch_name
from braze.errors import LinkError
from braze.runtime.call_checks import ErrorWords, InputChecker, as_traced, item
from braze.runtime.checks import EXCEPTIONS
from braze.runtime.engines import engine
from braze.runtime.expr import Expr
from braze.runtime.linker import LinkedCode, entry_point
from braze.runtime.memory import Block, on_device, workspaces
from braze.runtime.plan import (
    SEGMENTS,
    Allocate,
    Arg,
    Assert,
    BindItem,
    BindSize,
    BindStream,
    BindThreads,
    BufferArg,
    CallExtern,
    CheckRange,
    CheckSizes,
    CheckTensor,
    Compute,
    Event,
    Free,
    Hold,
    Instruction,
    Launch,
    LoadConstant,
    Pattern,
    Plan,
    Ref,
    Restride,
    Return,
    RunSegment,
    Slice,
    View,
    Workspace,
)
from braze.runtime.realign import run_realigned
from braze.runtime.spec import TensorSpec
from braze.runtime.threads import team_size
from braze.runtime.verify import verify

__all__ = [
    "TINY_WORK",
    "CompiledCall",
    "Instrument",
    "build",
    "compile_source",
    "record",
    "source_of",
    "statements",
]

CompiledCall: TypeAlias = Callable[[list[Any]], Sequence[Any]]
"""Takes its arguments in one list, which it empties."""

Instrument: TypeAlias = Callable[[Event, Sequence[int]], AbstractContextManager[object]]
"""Makes the context in which a kernel or an extern runs, to time it, to show it under its name, or to look at
what it does. It is given the addresses and sizes that a kernel is called with, in the order of the call."""

TINY_WORK: Final = 2048
"""Work below which a segment keeps the interpreter's lock: letting go of it costs as much as the work."""

_OWN: Final = frozenset(
    "_instrument _known _learn _mismatch _no_memory _profiled _profiling _restride _unexpected".split()
)
"""Globals of generated code that are made where they are first needed."""

_numbers = itertools.count()


def build(
    plan: Plan,
    code: Mapping[str, Any] | LinkedCode | None = None,
    constants: Mapping[str, torch.Tensor] | None = None,
    *,
    externs: Mapping[str, Callable[..., Any]] | None = None,
    instrument: Instrument | None = None,
    min_parallel_work: int = 32768,
) -> CompiledCall:
    """Turn a plan into a function.

    Args:
        plan: checked by `verify` first.
        code: what each backend's engine loaded, by kind; or the code of segments alone. It has every entry
            of the plan, and the function keeps it alive. None for a plan that runs no kernel.
        constants: tensors by the keys of `LoadConstant`. externs: callables by the keys of ``python::<key>``
        targets. instrument: run the kernels of segments one by one, each in ``instrument(event, values)``;
        externs as well. min_parallel_work: work from which a segment gets `team_size` threads instead of one.

    Returns a function that may be called from several threads at once, and inside itself. Externs run in the
    grad mode of the caller, so that has to be one without gradients. Under a profiler every kernel shows
    under its own name. Attributes: ``source`` and ``plan``. It raises `InputMismatchError` for inputs that
    the code was not made for, and what the plan's error table says where a check of machine code failed.

    Raises `PlanError`, and `LinkError` where the code lacks an entry or an operator does not exist.
    """
    verify(plan)
    loaded = {SEGMENTS: code} if isinstance(code, LinkedCode) else dict(code or {})
    given = plan, loaded, constants or {}, externs or {}, min_parallel_work
    function = (writer := _Writer(*given, instrument)).function()
    if instrument is None and plan.launches:
        profiled: list[CompiledCall] = []

        def run_profiled(args: list[Any]) -> Sequence[Any]:
            if not profiled:
                profiled.append(_Writer(*given, record).function())
            return profiled[0](args)

        writer.names["_profiled"] = run_profiled
    return function


def source_of(function: CompiledCall) -> str:
    """The Python source of a function that `build` made."""
    return str(cast(Any, function).source)


def statements(
    plan: Plan,
    code: LinkedCode | None,
    *,
    externs: Mapping[str, Callable[..., Any]] | None = None,
    addresses: Mapping[str, str] | None = None,
    instrument: Instrument | None = None,
    min_parallel_work: int = 32768,
) -> tuple[list[str], dict[str, Any]]:
    """The statements of a plan without a `Return`, for a function that does more than to run it, and the
    globals that they use. What no instruction makes has to be there: tensors are variables, numbers variables
    or globals. ``addresses``: expressions for where those buffers are that are no tensors."""
    loaded = {} if code is None else {SEGMENTS: code}
    writer = _Writer(plan, loaded, {}, externs or {}, min_parallel_work, instrument, addresses or {})
    for position, one in enumerate(plan.instructions):
        writer.write(position, one)
    writer.finish()
    return writer.lines, writer.names


def record(event: Event, _values: Sequence[int]) -> AbstractContextManager[object]:
    """An `Instrument`: profilers show kernels under their names."""
    return native.record_function(event.name)


def compile_source(source: str, name: str) -> CodeType:
    """The code of a module that defines one function. As long as there is that function, or the code,
    debuggers and tracebacks show its source."""
    filename = f"<braze {name} {next(_numbers)}>"
    # the text is ours: its names are identifiers, and values are bound, not written
    code = compile(source, filename, "exec")
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    (function,) = [one for one in code.co_consts if isinstance(one, CodeType)]
    weakref.finalize(function, linecache.cache.pop, filename, None).atexit = False
    return code


def _bytes_of(values: Sequence[Expr]) -> str:
    return f"({', '.join(map(str, values))}{',' if len(values) == 1 else ''})"


def _shape(spec: TensorSpec[Expr]) -> str:
    return f"{_bytes_of(spec.sizes)}, {_bytes_of(spec.strides)}"


def _is_constant(*values: Expr) -> bool:
    return all(e.constant is not None for e in values)


class _Writer:
    """Writes the function of one plan. ``names`` are the globals of the generated code."""

    def __init__(
        self,
        plan: Plan,
        code: Mapping[str, Any],
        constants: Mapping[str, torch.Tensor],
        externs: Mapping[str, Callable[..., Any]],
        min_parallel_work: int,
        instrument: Instrument | None,
        addresses: Mapping[str, str] | None = None,
    ) -> None:
        self.plan = plan
        self.code = code
        self.constants = constants
        self.externs = externs
        self.min_parallel_work = min_parallel_work
        self.instrument = instrument
        self.addresses = addresses or {}
        self.lines: list[str] = []
        self.errors = ErrorWords(plan.errors)
        self.checker = InputChecker(plan)
        self.names: dict[str, Any] = {
            "_code": code,
            "_empty": native.empty_strided_here,
            "_same": native.assert_size_stride,
            "_view": native.reinterpret_tensor,
            "_team": team_size,
            "_take": workspaces.take,
            "_give": workspaces.give,
            "_item": item,
            "_errors": self.errors,
            "_realigned": run_realigned,
        }
        self._bound: dict[tuple[str, Any], str] = {}
        self._slices: dict[str, Slice] = {}
        self._workspaces: list[str] = []
        self._lent: list[str] = []
        self._checked = any(launch.checked for launch in plan.launches)
        self._survey()

    # -- what the whole plan tells ----------------------------------------------------------------------
    def _survey(self) -> None:
        """Which slices have to be tensors, which pointers are used more than once, which views can be
        kept."""
        self._tensors: set[str] = set()
        self._pointer_uses: dict[str, int] = {}
        self._kept: dict[str, list[Slice | View]] = {}
        kept_home: dict[str, str] = {}
        for one in self.plan.instructions:
            match one:
                case RunSegment() | Launch():
                    for buffer in one.buffers:
                        self._pointer_uses[buffer.name] = self._pointer_uses.get(buffer.name, 0) + 1
                case CallExtern():
                    self._note_args([*one.args, *(value for _, value in one.kwargs)])
                case View():
                    self._tensors.add(one.base)
                case BindSize() | CheckTensor():
                    self._tensors.add(one.tensor)
                case BindItem():
                    self._tensors.add(one.source)
                case _:
                    pass
        for one in self.plan.instructions:
            if isinstance(one, Slice):
                self._slices[one.out] = one
                if one.out in self._tensors and _is_constant(*one.spec.numbers, one.offset):
                    self._kept.setdefault(one.workspace, []).append(one)
                    kept_home[one.out] = one.workspace
            elif (
                isinstance(one, View)
                and one.base in kept_home
                and not one.reinterprets
                and _is_constant(*one.spec.numbers)
            ):
                self._kept[kept_home[one.base]].append(one)
                kept_home[one.out] = kept_home[one.base]
        self._kept_names = set(kept_home)

    def _note_args(self, values: Sequence[Arg]) -> None:
        for value in values:
            if isinstance(value, Ref):
                self._tensors.add(value.name)
            elif isinstance(value, tuple):
                self._note_args(value)

    # -- the function -----------------------------------------------------------------------------------
    def function(self) -> CompiledCall:
        plan = self.plan
        if plan.inputs:
            self._line(f"{', '.join(plan.inputs)}{',' if len(plan.inputs) == 1 else ''} = _args_")
        self._line("_args_.clear()")
        head = self._head()
        for position, one in enumerate(plan.instructions[head:], head):
            self.write(position, one)
        profiled = self.instrument is None and bool(plan.launches)
        lines = [f"def {_identifier(plan.name)}(_args_):"]
        if profiled:
            self.names["_profiling"] = native.profiler_enabled
            lines += ["    if _profiling():", "        return _profiled(_args_)"]
        lines += [f"    {line}" for line in self.lines]
        source = "\n".join(lines) + "\n"
        exec(compile_source(source, plan.name), self.names)
        function = self.names.pop(_identifier(plan.name))
        function._boxed_call = True
        function.source = source
        function.plan = plan
        return cast(CompiledCall, function)

    def _line(self, text: str) -> None:
        self.lines.append(text)

    def _bind(self, stem: str, value: Any) -> str:
        """A global for a value; the same one for the same object."""
        key = (stem, id(value))
        if key not in self._bound:
            name = f"_{stem}"
            if name in self.names or name in _OWN:
                name = f"_{stem}_{len(self._bound)}"
            self._bound[key] = name
            self.names[name] = value
        return self._bound[key]

    def _dtype(self, dtype: torch.dtype) -> str:
        return self._bind(torch_name(dtype), dtype)

    def _head(self) -> int:
        """Reading sizes from inputs, and checking inputs, in one block; the position of what follows it."""
        head = 0
        body: list[str] = []
        fixed: list[CheckTensor] = []
        place = 0
        for one in self.plan.instructions:
            if isinstance(one, BindSize) and one.tensor in self.plan.inputs:
                body.append(str(one))
            elif isinstance(one, (CheckRange, CheckSizes)):
                body += [f"if not ({one.condition}):", "    raise AssertionError"]
            elif isinstance(one, CheckTensor) and one.origin == "input" and one.tensor in self.plan.inputs:
                if InputChecker.is_fixed(one):
                    place = place if fixed else len(body)
                    fixed.append(one)
                else:
                    body += self._check(one)
            else:
                break
            head += 1
        if fixed:
            tensors = ", ".join(check.tensor for check in fixed)
            self.names["_known"] = lambda *tensors: False
            self.names["_learn"] = self.checker.learner(fixed, self.names, "_known")
            body[place:place] = [f"if not _known({tensors}):", f"    _learn({tensors})"]
        if body:
            self.names["_mismatch"] = self.checker.mismatch
            self._line("try:")
            self.lines += [f"    {line}" for line in body]
            self._line("except Exception as _error_:")
            self._line("    raise _mismatch(locals(), _error_) from None")
        return head

    def _check(self, one: CheckTensor) -> list[str]:
        """Lines that raise ``AssertionError`` unless the tensor is as it should be."""
        name, spec = one.tensor, one.spec
        device = f"{name}.device.type != {spec.device!r}"
        if spec.device == "cpu":
            device = f"not {name}.is_cpu"
        elif ":" in spec.device:
            device = f"str({name}.device) != {spec.device!r}"
        lines = [f"if {name}.dtype is not {self._dtype(spec.dtype)} or {device}:", "    raise AssertionError"]
        sizes = [e for e in spec.sizes if e is not None]
        strides = [e for e in spec.strides if e is not None]
        if len(sizes) == len(spec.sizes) and len(strides) == len(spec.strides):
            # `_same` takes a tensor without elements for one of any size; it knows which strides do not count
            lines[0] = f"{lines[0][:-1]} or {name}.shape != {_bytes_of(sizes)}:"
            wanted = _bytes_of(strides)
            same = f"    _same({name}, {_bytes_of(sizes)}, {wanted})"
            return [*lines, f"if {name}.stride() != {wanted}:", same]
        tests = [f"{name}.dim() == {len(spec.sizes)}"]
        tests += [f"{name}.shape[{i}] == {e}" for i, e in enumerate(spec.sizes) if e is not None]
        steps = [
            f"({name}.stride({i}) == {e} or {name}.shape[{i}] < 2)"
            for i, e in enumerate(spec.strides)
            if e is not None
        ]
        if steps:
            tests.append(f"({' and '.join(steps)} or not {name}.numel())")
        return [*lines, f"if not ({' and '.join(tests)}):", "    raise AssertionError"]

    # -- one instruction --------------------------------------------------------------------------------
    def write(self, position: int, one: Instruction) -> None:
        """Add the statements of an instruction."""
        match one:
            case BindSize():
                self._line(str(one))
            case BindItem():
                value = f"_item({one.source})"
                self._line(f"{one.out} = int({value})" if one.as_int else f"{one.out} = {value}")
            case Compute():
                function = self._bind(_identifier(one.function), NUMBER_FUNCTIONS[one.function])
                self._line(f"{one.out} = {function}({', '.join(map(self._arg, one.args))})")
            case Hold():
                make = self._bind("scalar_tensor", torch.scalar_tensor)
                self._line(f"{one.out} = {make}({one.number}, dtype={self._dtype(one.dtype)})")
            case BindThreads():
                self._line(f"{one.out} = _team()")
            case CheckRange() | CheckSizes():
                self._line(f"if not ({one.condition}):")
                self._line(f"    raise RuntimeError({f'this data does not fulfil {one.condition}'!r})")
            case CheckTensor():
                self.names["_unexpected"] = self.checker.unexpected
                self._line("try:")
                self.lines += [f"    {line}" for line in self._check(one)]
                self._line("except Exception as _error_:")
                self._line(f"    raise _unexpected({position}, locals(), _error_) from None")
            case Restride():
                self.names["_restride"] = as_traced
                name, strides = one.tensor, _bytes_of(one.spec.strides)
                sizes = _bytes_of(one.spec.sizes)
                self._line(f"if {name}.shape != {sizes} or {name}.stride() != {strides}:")
                self._line(f"    {name} = _restride({name}, {sizes}, {strides}, {one.origin!r})")
            case LoadConstant():
                if one.key not in self.constants:
                    raise LinkError(f"plan {self.plan.name} was not given the constant {one.key!r}")
                self._line(f"{one.out} = {self._bind('constant', self.constants[one.key])}")
            case Allocate():
                self._allocate(one)
            case Workspace():
                self._workspace(one)
            case Slice():
                self._slice(one)
            case View():
                self._reinterpret(one)
            case RunSegment():
                self._segment(position, one)
            case BindStream():
                self._line(f"{one.out} = {self._bind('stream', engine(one.kind).stream)}()")
            case Launch():
                self._launch(position, one)
            case CallExtern():
                self._extern(position, one)
            case Assert():
                self._line(f"if not ({one.condition}):")
                raised = self._bind(one.exception, EXCEPTIONS[one.exception])
                self._line(f"    raise {raised}({one.message!r})")
            case Free():
                self._free(one.names)
            case Return():
                self.finish()
                self._line(f"return [{', '.join(map(self._arg, one.values))}]")

    def finish(self) -> None:
        """Add the statements that give back what the call was lent."""
        for name in self._workspaces:
            self._line(f"_give({name})")
        if self._checked:
            self._line("_errors.give(_failure_)")

    def _allocate(self, one: Allocate) -> None:
        shape, dtype, device = _shape(one.spec), self._dtype(one.spec.dtype), one.spec.device
        if device == "cpu":
            self._line(f"{one.out} = _empty({shape}, {dtype})")
        else:
            make = self._bind("empty_strided", torch.empty_strided)
            self._line(f"{one.out} = {make}({shape}, dtype={dtype}, device={device!r})")

    def _workspace(self, one: Workspace) -> None:
        if one.device != "cpu":
            self._line(f"{one.out} = {self._bind('on_device', on_device)}({one.nbytes}, {one.device!r})")
            self._lent.append(one.out)
            return
        self._line(f"{one.out} = _take({one.nbytes})")
        self._workspaces.append(one.out)
        kept = self._kept.get(one.out)
        if not kept:
            return
        key = object()
        names = ", ".join(view.out for view in kept)
        self.names[f"_{one.out}_key"] = key
        self.names[f"_{one.out}_views"] = view_maker(kept, key)
        self._line(f"{names}, = {one.out}.views.get(_{one.out}_key) or _{one.out}_views({one.out})")
        weakref.finalize(self.names[f"_{one.out}_views"], workspaces.forget_views, key).atexit = False

    def _slice(self, one: Slice) -> None:
        if one.out in self._tensors and one.out not in self._kept_names:
            dtype = self._dtype(one.spec.dtype)
            self._line(f"{one.out} = {one.workspace}.tensor({one.offset}, {dtype}, {_shape(one.spec)})")

    def _reinterpret(self, one: View) -> None:
        if one.out in self._kept_names:
            return
        shape, offset = _shape(one.spec), one.spec.offset
        if not one.reinterprets:
            self._line(f"{one.out} = _view({one.base}, {shape}, {offset})")
        else:
            make = self._bind("view_as", native.reinterpret_bytes)
            self._line(f"{one.out} = {make}({one.base}, {self._dtype(one.spec.dtype)}, {shape}, {offset})")

    def _free(self, names: Sequence[str]) -> None:
        gone = []
        for name in names:
            if name in self._workspaces:
                self._workspaces.remove(name)
                self._line(f"_give({name})")
                gone.append(name)
            elif name in self._lent:
                self._lent.remove(name)
                gone.append(name)
            elif name in self._slices and name not in self._tensors:
                continue  # never was a tensor
            elif name not in self._kept_names:
                gone.append(name)
        if gone:
            self._line(f"del {', '.join(gone)}")

    # -- machine code -----------------------------------------------------------------------------------
    def _pointer(self, buffer: BufferArg) -> str:
        name, extra = buffer.name, buffer.offset
        one = self._slices.get(name)
        if one is not None:
            name, extra = one.workspace, one.offset + extra
        if name in self.addresses:
            base = self.addresses[name]
        elif name in self._workspaces or name in self._lent:
            base = f"{name}.address"
        elif self._pointer_uses[name] > 1 or name in self.plan.inputs:
            base = f"_p_{name}_"
            if base not in self._bound.values():
                self._bound[("pointer", name)] = base
                self._line(f"{base} = {name}.data_ptr()")
                if name in self.plan.inputs:
                    self.names["_no_memory"] = self.checker.no_memory
                    self._line(f"if not {base}:")
                    self._line(f"    _no_memory({name}, {name!r})")
        else:
            base = f"{name}.data_ptr()"
        return base if extra == 0 else f"{base} + {extra}"

    def _symbol(self, entry: str, work: Expr) -> str:
        tiny = work.constant is not None and work.constant < TINY_WORK
        return self._bind(_identifier(entry), entry_point(self._code(SEGMENTS), entry, keep_lock=tiny))

    def _code(self, kind: str) -> Any:
        if kind not in self.code:
            raise LinkError(f"plan {self.plan.name} runs code of {kind}, and none was given")
        return self.code[kind]

    def _error_words(self, one: RunSegment | Launch) -> str:
        """The address to which failed checks are written; for what checks nothing, that of the sink."""
        if not one.checked:
            return str(self.errors.sink)
        if "_failure_ = _errors.take()" not in self.lines:
            self._line("_failure_ = _errors.take()")
        return "_failure_.address"

    def _look_for_errors(self, one: RunSegment | Launch) -> None:
        if one.checked:
            self._line("if _failure_.words[0]:")
            self._line("    raise _errors.exception(_failure_)")

    def _launch(self, position: int, one: Launch) -> None:
        error = self._error_words(one)
        run = self._bind(_identifier(one.entry), self._code(one.kind).launcher(one.entry))
        values = [*map(self._pointer, one.buffers), *map(str, one.sizes), error]
        call = f"{run}({', '.join(values)}, {_bytes_of(one.grid)}, {one.stream})"
        self._instrumented(Event("kernel", one.kernel, position, 0), f"({', '.join(values)},)", call)
        self._look_for_errors(one)

    def _segment(self, position: int, one: RunSegment) -> None:
        error = self._error_words(one)
        values = [error, *map(self._pointer, one.buffers), *map(str, one.sizes)]
        pack = self.names.setdefault(f"_pack{len(values)}", struct.Struct(f"={len(values)}q").pack)
        assert pack is not None
        pack_all = f"_pack{len(values)}"
        args = f"{pack_all}({', '.join(values)})"
        work = one.work.constant
        team = one.threads or "_team()"
        if work is None:
            threads = f"{team} if {one.work} >= {self.min_parallel_work} else 1"
        else:
            threads = team if work >= self.min_parallel_work else "1"
        if self.instrument is None:
            self.lines += self._entry(one, one.entry, f"_packed_ := {args}", threads)
        else:
            self._line(f"_values_ = ({', '.join(values)},)")
            self._line(f"_packed_ = {pack_all}(*_values_)")
            self._line(f"_threads_ = {threads}")
            parts = [("kernel", k.name, k.entry) for k in one.kernels] or [("segment", one.entry, one.entry)]
            for index, (kind, name, entry) in enumerate(parts):
                lines = self._entry(one, entry, "_packed_", "_threads_")
                self._instrumented(Event(kind, name, position, index), "_values_", *lines)
        self._look_for_errors(one)

    def _entry(self, one: RunSegment, entry: str, args: str, threads: str) -> list[str]:
        """Lines that call machine code, and what to do where it finds a pointer misaligned."""
        tensors = [
            f"({position}, {buffer.name}), "
            for position, buffer in enumerate(one.buffers, 1)
            if buffer.name not in self._slices
            and buffer.name not in (*self._workspaces, *self._lent, *self.addresses)
        ]
        symbol = self._symbol(entry, one.work)
        again = f"    _realigned({symbol}, _packed_, {threads}, ({''.join(tensors)}))"
        return [f"if {symbol}({args}, {threads}):", again]

    def _instrumented(self, event: Event, values: str, *lines: str) -> None:
        if self.instrument is None:
            self.lines += lines
            return
        self.names["_instrument"] = self.instrument
        self._line(f"with _instrument({self._bind('event', event)}, {values}):")
        self.lines += [f"    {line}" for line in lines]

    # -- externs ----------------------------------------------------------------------------------------
    def _extern(self, position: int, one: CallExtern) -> None:
        args = [self._arg(a) for a in one.args] + [f"{key}={self._arg(a)}" for key, a in one.kwargs]
        call = f"{self._operator(one.target)}({', '.join(args)})"
        unused: list[str] = []
        if one.outs is not None:
            call = f"{self._pattern(one.outs, unused)} = {call}"
        self._instrumented(Event("extern", one.target, position, 0), "()", call)
        if unused:
            self._line(f"del {', '.join(unused)}")

    def _operator(self, target: str) -> str:
        namespace, _, name = target.partition("::")
        if namespace == "python":
            if name not in self.externs:
                raise LinkError(f"plan {self.plan.name} was not given the callable {target}")
            return self._bind(_identifier(name), self.externs[name])
        try:
            operator = native.fast_operator(target)
        except AttributeError as error:
            raise LinkError(f"plan {self.plan.name}: this PyTorch has no {target}") from error
        return self._bind(_identifier(name), operator)

    def _pattern(self, pattern: Pattern, unused: list[str]) -> str:
        if isinstance(pattern, tuple):
            inner = ", ".join(self._pattern(part, unused) for part in pattern)
            return f"({inner},)" if len(pattern) == 1 else f"({inner})"
        if pattern is None:
            unused.append(f"_unused{len(unused)}_")
            return unused[-1]
        return pattern

    def _arg(self, value: Arg) -> str:
        if isinstance(value, tuple):
            return f"[{', '.join(map(self._arg, value))}]"
        if value is None or isinstance(value, (Ref, Expr, bool, int)):
            return str(value)
        if isinstance(value, str):
            return repr(value)
        if isinstance(value, torch.dtype):
            return self._dtype(value)
        return self._bind("value", value)


def _identifier(name: str) -> str:
    text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return text if text.isidentifier() and not keyword.iskeyword(text) else f"g{text}"


def view_maker(views: Sequence[Slice | View], key: object) -> Callable[[Block], tuple[torch.Tensor, ...]]:
    """A function that makes these tensors of a block, and keeps them with it."""

    def ints(values: Sequence[Expr]) -> tuple[int, ...]:
        return tuple([v.evaluate({}) for v in values])

    def make(block: Block) -> tuple[torch.Tensor, ...]:
        made: dict[str, torch.Tensor] = {}
        with torch.inference_mode(False):  # they will be used in every mode
            for one in views:
                shape = ints(one.spec.sizes), ints(one.spec.strides)
                if isinstance(one, Slice):
                    made[one.out] = block.tensor(one.offset.evaluate({}), one.spec.dtype, *shape)
                else:
                    offset = one.spec.offset.evaluate({})
                    made[one.out] = native.reinterpret_tensor(made[one.base], *shape, offset)
        block.views[key] = tuple(made.values())
        return tuple(made.values())

    return make
