"""A second backend: kernels as plain numpy source. It shows that a backend needs nothing but to register."""

registering_name = "tests.codegen.numpy_backend.registering"
