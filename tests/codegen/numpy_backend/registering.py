"""What a process imports to have the backend: a compile worker does, when its parent has it."""

from __future__ import annotations

from braze.codegen.backends import register
from tests.codegen.numpy_backend.backend import NUMPY

register(NUMPY, module=__name__)
