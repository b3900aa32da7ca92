"""Hand-written machine code for the tests of the runtime, in LLVM's assembly."""

from __future__ import annotations

from collections.abc import Sequence

from braze.codegen.llvm import pool
from braze.runtime.linker import LinkedCode, link
from braze.runtime.target import host_target

ADD_ONE = """
; args: error words, in, out, n
define i64 @add_one(ptr %args, i64 %nt) {
entry:
  %p1 = getelementptr i64, ptr %args, i64 1
  %in = load ptr, ptr %p1
  %p2 = getelementptr i64, ptr %args, i64 2
  %out = load ptr, ptr %p2
  %p3 = getelementptr i64, ptr %args, i64 3
  %n = load i64, ptr %p3
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %a = getelementptr float, ptr %in, i64 %i
  %x = load float, ptr %a
  %y = fadd float %x, 1.0
  %b = getelementptr float, ptr %out, i64 %i
  store float %y, ptr %b
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 0
}
"""

TEAM = """
; args: error words, out: each thread of the team adds one to out[0]; out[1] becomes the team's size
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare void @GOMP_barrier()
declare i32 @omp_get_num_threads()

define internal void @body(ptr %args) {
  %p1 = getelementptr i64, ptr %args, i64 1
  %out = load ptr, ptr %p1
  %old = atomicrmw add ptr %out, i64 1 seq_cst
  call void @GOMP_barrier()
  %size = call i32 @omp_get_num_threads()
  %wide = zext i32 %size to i64
  %second = getelementptr i64, ptr %out, i64 1
  store atomic i64 %wide, ptr %second monotonic, align 8
  ret void
}

define i64 @team(ptr %args, i64 %nt) {
  %n = trunc i64 %nt to i32
  call void @GOMP_parallel(ptr @body, ptr %args, i32 %n, i32 0)
  ret i64 0
}
"""

FAIL = """
; args: error words, in: a negative in[0] is reported as error 7, with the bound 10
define i64 @fail(ptr %args, i64 %nt) {
entry:
  %err = load ptr, ptr %args
  %p1 = getelementptr i64, ptr %args, i64 1
  %in = load ptr, ptr %p1
  %x = load i64, ptr %in
  %bad = icmp slt i64 %x, 0
  br i1 %bad, label %report, label %done
report:
  store i64 7, ptr %err
  %e1 = getelementptr i64, ptr %err, i64 1
  store i64 %x, ptr %e1
  %e2 = getelementptr i64, ptr %err, i64 2
  store i64 10, ptr %e2
  br label %done
done:
  ret i64 0
}
"""

ABORTS = """
define <16 x float> @f(<16 x float> %a) {
  %r = call <16 x float> @llvm.x86.avx512.sqrt.ps.512(<16 x float> %a, i32 4)
  ret <16 x float> %r
}
declare <16 x float> @llvm.x86.avx512.sqrt.ps.512(<16 x float>, i32)
"""
"""A module that verifies, and makes the code generator end the process for a CPU without AVX-512."""


def constant_function(value: int) -> str:
    """A module with ``i64 f()``."""
    return f"define i64 @f() {{ ret i64 {value} }}\n"


def compiled(*texts: str) -> list[bytes]:
    """The object code of each module, for this machine."""
    target = host_target()
    futures = [pool.compile_ir(text, cpu=target.cpu, features=target.features) for text in texts]
    return [future.result().object for future in futures]


def linked(exports: Sequence[str], *texts: str) -> LinkedCode:
    """Modules compiled for this machine and linked."""
    return link(compiled(*texts), exports=exports)
