"""The module part of the LLVM text builder: declarations, constants, attribute groups, metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from braze.codegen.llvm.types import PTR, IRBuildError, Type, Value, scalar_literal

if TYPE_CHECKING:
    from braze.codegen.llvm.builder import FunctionBuilder

__all__ = ["ModuleBuilder"]


class ModuleBuilder:
    """One LLVM module as text. Functions are added with :class:`~braze.codegen.llvm.builder.FunctionBuilder`.

    Args:
        name: the module's name, seen in LLVM's messages.
        triple: target triple, or None to leave it to the target machine.
        data_layout: data layout string, or None.
        vector_bits: the target's widest vector register. Calls to vector functions outside the module pass
            vectors of this width, so the target must have it (256 needs AVX, 512 AVX-512).
    """

    def __init__(
        self,
        name: str = "braze",
        triple: str | None = None,
        data_layout: str | None = None,
        vector_bits: int = 256,
    ) -> None:
        self.name = name
        self.triple = triple
        self.data_layout = data_layout
        self.vector_bits = vector_bits
        self.functions: list[FunctionBuilder] = []
        self._defined: set[str] = set()
        self._declared: dict[str, str] = {}
        self._globals: dict[str, tuple[str, Value]] = {}
        self._attributes: dict[str, str] = {}
        self._metadata: list[str] = []
        self._aliases: list[str] = []

    def declare(self, name: str, ret: Type, params: Sequence[Type], attributes: Sequence[str] = ()) -> str:
        """Declare an external function once; returns ``@name``.

        Raises:
            IRBuildError: the name is already declared with another signature, or defined here.
        """
        text = f"declare {ret.text} @{name}({', '.join([p.text for p in params])})"
        if attributes:
            text += " " + self.attributes(attributes)
        known = self._declared.setdefault(name, text)
        if known != text or name in self._defined:
            raise IRBuildError(f"@{name} is already known with another signature: {known!r}, now {text!r}")
        return "@" + name

    def alias(self, name: str, target: str, ret: Type, params: Sequence[Type]) -> None:
        """Another name of a function that is defined here."""
        if target not in self._defined or name in self._defined or name in self._declared:
            raise IRBuildError(f"@{name} cannot be another name of @{target}")
        self._defined.add(name)
        of = f"{ret.text} ({', '.join([p.text for p in params])})"
        self._aliases.append(f"@{name} = alias {of}, ptr @{target}")

    def is_declared(self, name: str) -> bool:
        """Whether ``name`` was declared before."""
        return name in self._declared

    def is_defined(self, name: str) -> bool:
        """Whether a function of this module has that name."""
        return name in self._defined

    def define(self, function: FunctionBuilder) -> None:
        """Called by :class:`FunctionBuilder`: takes the function into the module."""
        if function.name in self._defined or function.name in self._declared:
            raise IRBuildError(f"@{function.name} is already in the module")
        self._defined.add(function.name)
        self.functions.append(function)

    def attributes(self, attributes: Iterable[str]) -> str:
        """The attribute group (``#0``) of these attributes (``nounwind``, ``"target-cpu"="x"``, ...)."""
        text = " ".join(attributes)
        return self._attributes.setdefault(text, f"#{len(self._attributes)}")

    def metadata(self, text: str, *, distinct: bool = False) -> str:
        """Append a numbered metadata node; ``text`` stands inside ``!{}``, ``$self`` is the node itself."""
        reference = f"!{len(self._metadata)}"
        body = text.replace("$self", reference)
        self._metadata.append(f"{reference} = {'distinct ' if distinct else ''}!{{{body}}}")
        return reference

    def loop_metadata(self, hints: Iterable[str]) -> str:
        """A distinct loop id with hints like ``llvm.loop.unroll.disable`` or ``llvm.loop.unroll.count=4``."""
        nodes = []
        for hint in hints:
            name, _, count = hint.partition("=")
            nodes.append(self.metadata(f'!"{name}"' + (f", i32 {count}" if count else "")))
        return self.metadata(", ".join(["$self", *nodes]), distinct=True)

    def constant_table(self, elem: str, values: Sequence[float], align: int = 64) -> Value:
        """A private read-only array, deduplicated by content; returns a pointer to its first element."""
        items = ", ".join([f"{elem} {scalar_literal(v, elem)}" for v in values])
        text = f"private unnamed_addr constant [{len(values)} x {elem}] [{items}], align {align}"
        found = self._globals.get(text)
        if found is None:
            name = f"@.table{len(self._globals)}"
            found = (f"{name} = {text}", Value(name, PTR))
            self._globals[text] = found
        return found[1]

    def text(self) -> str:
        """The module as LLVM assembly.

        Raises:
            IRBuildError: a function has a block without a terminator, or a phi that lacks an incoming value.
        """
        parts = [f"; ModuleID = '{self.name}'"]
        if self.data_layout is not None:
            parts.append(f'target datalayout = "{self.data_layout}"')
        if self.triple is not None:
            parts.append(f'target triple = "{self.triple}"')
        parts.extend(definition for definition, _ in self._globals.values())
        parts.extend(function.text() for function in self.functions)
        parts.extend(self._aliases)
        parts.extend(self._declared.values())
        parts.extend(f"attributes {group} = {{ {text} }}" for text, group in self._attributes.items())
        parts.extend(self._metadata)
        parts.append("")
        return "\n".join(parts)
