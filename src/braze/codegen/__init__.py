"""Code generation: kernels to LLVM IR, Triton source and launch plans."""
