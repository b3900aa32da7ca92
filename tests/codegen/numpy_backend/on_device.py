"""What a process imports to have the backend together with its made-up device."""

from __future__ import annotations

from braze.codegen.backends import register
from tests.codegen.numpy_backend import device as device  # makes the device known to PyTorch
from tests.codegen.numpy_backend.backend import NUMPY

register(NUMPY, module=__name__)
