"""Compile in this process, but by way of bytes: what reaches the compiler, and what comes back, is nothing
that could not have been sent. For tests, and for whoever wants to know whether a graph can leave the process.

A file of its own: each mode's strategy has one.
"""

from __future__ import annotations

from dataclasses import dataclass

from braze.artifact.output_code import OutputCode
from braze.compile.fx_compile import CompileRequest
from braze.compile.remote_job import compile_request
from braze.compile.round_trip import printed, through

__all__ = ["SerializedFxCompile"]


@dataclass(frozen=True)
class SerializedFxCompile:
    """Request, bytes, request, artefact, bytes, artefact; all in the calling thread."""

    def compile(self, request: CompileRequest) -> OutputCode:
        return through(request, lambda: compile_request(printed(request).to_bytes()))
