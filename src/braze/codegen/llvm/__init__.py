"""CPU code generation: LLVM IR text for kernels and the object code made from it."""
