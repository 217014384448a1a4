"""Takes out of Triton's interpreter what costs most. To import before kernels run; needs TRITON_INTERPRET=1."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

PATCH = interpreter._patch_lang


def patch_once(function):
    """The interpreter looks through the language for what it replaces, at each call within a kernel too, where all is
    replaced already."""
    languages = [one for one in function.__globals__.values() if one is tl or one is tl.core]
    return PATCH(function) if any(tl.core.is_builtin(one.load) for one in languages) else None


NUMPY = functools.cache(interpreter._get_np_dtype)
"""Uncached, it writes a table at every call."""


def numpy_dtype(dtype):
    """That of one number."""
    one = dtype.scalar
    return np.dtype(np.uint64) if isinstance(one, tl.pointer_type) else NUMPY(one)


interpreter._patch_lang, interpreter._get_np_dtype = patch_once, numpy_dtype
builder = interpreter.interpreter_builder
# A sum, difference or product of integers is computed in int64 as well, to find an overflow that no GPU looks for.
builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
