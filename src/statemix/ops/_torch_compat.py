"""Every private name of torch that statemix uses, each behind a small function: the file to read when torch changes.

Written for torch 2.11 to 2.13. `tests/ops/test_torch_compat.py` sees to it that no other file uses such a name.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

_ORDINARY = (Tensor, nn.Parameter)


def without_memory() -> Any:
    """A context in which tensors have shapes alone: nothing is allocated or computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode()


def allow_recompilations(count: int) -> None:
    """Let torch.compile compile a function for so many kinds of input, where it would take fewer."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, count)


def below_autograd() -> Any:
    """A context in which operators keep no history."""
    return torch._C._AutoDispatchBelowAutograd()


def with_autograd() -> Any:
    """A context that undoes, inside an operator, the exclusion of autograd that operators run under."""
    include = torch._C._dispatch_tls_local_include_set()
    exclude = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor"):
        exclude = exclude.remove(getattr(torch._C.DispatchKey, key))
    return torch._C._ForceDispatchKeyGuard(include, exclude)


def in_transform() -> bool:
    """Whether a transform of torch.func is active; it sees autograd only from outside an operator."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def in_nested_forward_mode() -> bool:
    """Whether forward mode runs inside forward mode, where torch gives zeros for any autograd function."""
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return sum(one.key() == torch._C._functorch.TransformType.Jvp for one in stack) > 1


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents."""
    return forward_ad._current_level >= 0


def is_observed() -> bool:
    """Whether a compiler, a transform, a dispatch mode or a profiler looks at the operators that are called."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._autograd._profiler_enabled()
    )


def current_stream(device: torch.device) -> int:
    """The handle of the current stream of a CUDA device."""
    return torch._C._cuda_getCurrentRawStream(device.index)  # type: ignore[no-any-return]


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor is no subclass, and its memory holds its numbers: no lazy negation, no zeros without memory, no
    gradients that autograd takes many at a time (`is_grads_batched`)."""
    return type(tensor) in _ORDINARY and not (
        tensor.is_neg() or tensor._is_zerotensor() or torch._C._functorch.is_legacy_batchedtensor(tensor)
    )


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a view, which must not be changed in place while a gradient needs its base."""
    return tensor._is_view()


def is_mapped(tensor: Tensor) -> bool:
    """Whether vmap maps over a dimension of a tensor."""
    return not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(tensor)


def is_statically_true(condition: Any) -> bool:
    """Whether a condition on symbolic sizes holds for every size, without a guard on it."""
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def assume(condition: Any) -> None:
    """Tell a tracer that a condition on sizes holds."""
    torch._check(condition)


def recompile_limit(limit: int) -> Any:
    """A context in which torch.compile makes up to `limit` variants of a function."""
    return torch._dynamo.config.patch(recompile_limit=limit)


def copy_into(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors into others, many at a launch."""
    torch._foreach_copy_(targets, sources)


def keep_library(library: torch.library.Library) -> None:
    """Spare a library torch's own clean-up at exit, which runs before the atexit callbacks registered earlier."""
    for finalizer in tuple(weakref.finalize._registry):  # type: ignore[attr-defined]
        alive = finalizer.peek()
        if alive is not None and alive[0] is library:
            finalizer.atexit = False


def is_hooked(module: nn.Module) -> bool:
    """Whether a call runs more than its class's forward: hooks (those of all modules too) or another forward."""
    own = module.__dict__
    hooks = own["_forward_hooks"] or own["_forward_pre_hooks"]
    hooks = hooks or own["_backward_hooks"] or own["_backward_pre_hooks"]
    return bool(hooks) or "forward" in own or bool(_has_any_global_hook())


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` replaced what a call runs."""
    return module._compiled_call_impl is not None


def own_parameter(module: nn.Module, name: str, default: Any = None) -> Any:
    """A parameter registered under a name (None: registered as absent), past any property of that name."""
    return module._parameters.get(name, default)


def is_ordinary_parameter(parameter: object) -> bool:
    """Whether it is a parameter that is no quantised, sharded or otherwise special tensor; None is no bias."""
    kind = type(parameter)
    if kind in _ORDINARY or parameter is None:
        return True
    return isinstance(parameter, Tensor) and kind.__module__.startswith("torch._subclasses.")  # while tracing
