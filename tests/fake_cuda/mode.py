"""Tensors that torch itself takes for CUDA tensors (FakeTensorMode), beside real CPU tensors, and no GPU.

CPU operations are computed; an operation with a CUDA tensor gives shape, dtype, strides and device only.  So torch's
own rules find a mixture of devices, a shape that does not fit, a dtype that autocast does not give; where the host
would have to read a number there is none: it is noted and answered with zeros.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.cuda.amp.common
import torch.utils._foreach_utils
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.fake_cuda.guard import built_with_cuda, load_guard
from tests.fake_cuda.report import ATOMIC, COPY, FLOAT64, NOT_DETERMINISTIC, UNEVEN, WAIT, Report

DEVICE = torch.device("cuda:0")
_WAITING = {
    "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal", "is_nonzero", "_assert_async",
}  # fmt: skip
# at::globalContext().alertNotDeterministic in torch 2.11's CUDA library, as far as mdp could meet it
_ALERTING = {
    "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward", "_upsample_bilinear2d_aa_backward", "reflection_pad2d_backward",
    "grid_sampler_2d_backward", "put_", "histc", "kthvalue",
}  # fmt: skip
_ADDING = {
    "index_add_", "index_add", "scatter_add_", "scatter_add", "scatter_reduce", "upsample_bilinear2d_backward",
    "embedding_dense_backward", "_adaptive_avg_pool2d_backward", "replication_pad2d_backward",
}  # fmt: skip
_NO_KERNEL = {
    "detach", "device", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "alias", "set_",
    "lift_fresh", "is_same_size", "_has_compatible_shallow_copy_type",
}  # fmt: skip
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_UNIQUE = 20  # values that `unique` answers with, at most
_CHUNK = 64  # tensors that one launch of a foreach kernel takes


class _Fake(FakeTensorMode):  # type: ignore[no-untyped-call]
    """Never asks for a device, whatever torch.cuda.is_available says."""

    avoid_device_init = property(lambda self: True, lambda self, value: None)


def on_device(value: object) -> bool:
    """Whether it is a tensor that says it is on CUDA."""
    return isinstance(value, FakeTensor) and value.fake_device.type == "cuda"


class FakeCuda(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, `DEVICE` can be used; gives the report of what was asked of it.

    A build of torch without CUDA has no backward pass for its tensors: there, all parameters of the networks named by
    `learns` get gradients of zeros.
    """

    def __init__(self, deterministic: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fake = _Fake(allow_non_fake_inputs=True)
        self.report, self.deterministic = Report(), deterministic
        self.stack = contextlib.ExitStack()
        self.learning: list[nn.Parameter] = []

    def learns(self, network: nn.Module) -> None:
        """Tells whose gradients a backward pass fills in."""
        self.learning += [parameter for parameter in network.parameters() if parameter.requires_grad]

    def __enter__(self) -> Report:
        load_guard()
        torch._C._ensureCUDADeviceGuardSet()
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device="cuda") asks the mode for its copy
        self.stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        for owner, name, value in self._pretences():
            self.stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        self.stack.callback(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled())
        torch.use_deterministic_algorithms(self.deterministic)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self.report

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.stack.close()

    def _pretences(self) -> Iterable[tuple[Any, str, Any]]:
        """What torch is made to believe inside: (owner, name, value)."""
        answers = {
            "is_available": True, "device_count": 1, "_lazy_init": None, "manual_seed_all": None, "manual_seed": None,
            "get_device_name": "none", "empty_cache": None, "is_current_stream_capturing": False, "current_device": 0,
            "is_bf16_supported": True,
        }  # fmt: skip
        for name, answer in answers.items():
            yield torch.cuda, name, _always(answer)
        yield torch.cuda.amp.common, "amp_definitely_not_available", _always(False)
        yield nn.Module, "_apply", _applied
        yield FakeTensor, "tolist", lambda tensor: self._listed(tensor)  # noqa: PLW0108 - a method would not bind
        for module in (sys.modules["torch.optim.optimizer"], torch.utils._foreach_utils):  # torch.optim hides the first
            if hasattr(module, "_foreach_supported_types"):
                yield module, "_foreach_supported_types", [*module._foreach_supported_types, FakeTensor]
        if not built_with_cuda():
            yield Tensor, "backward", lambda loss, *_, **__: self._backward()
            yield torch.autograd, "grad", _zero_gradients

    def _backward(self) -> None:
        for parameter in self.learning:
            parameter.grad = torch.zeros_like(parameter)

    def _listed(self, tensor: FakeTensor) -> Any:
        """A tensor as a list: one wait, where torch would read such a tensor number by number."""
        self.report.note(WAIT, "tolist")
        return torch.zeros(tensor.shape, dtype=tensor.dtype).tolist()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        onto = target is not None and target.type == "cuda"
        if not onto and not any(isinstance(tensor, FakeTensor) for tensor in given):
            return func(*args, **kwargs)
        if onto:
            kwargs = {**kwargs, "device": DEVICE}
        name = func.overloadpacket.__name__
        if self._reads(name, args, target):
            self.report.note(WAIT, name)
            return _zeros(name, args, kwargs)
        if name in _INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in args[1] if isinstance(t, Tensor)):
            self.report.note(WAIT, f"{name} by a mask")
            return self._masked(name, args)
        if name in _WAITING:
            self.report.note(WAIT, name)
            return self._sized(name, args[0])
        if name == "bincount" or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.report.note(WAIT, name)
        self._note_copies(name, args, kwargs, [tensor for tensor in given if not isinstance(tensor, FakeTensor)])
        self._note_kernels(func, name, args, kwargs)
        with self.fake:
            return func(*args, **kwargs)

    @staticmethod
    def _reads(name: str, args: Any, target: torch.device | None) -> bool:
        """Whether the host reads values of the device: a number or a whole tensor."""
        if name == "_to_copy":
            return on_device(args[0]) and target is not None and target.type == "cpu"
        return name == "_local_scalar_dense" or (name == "copy_" and on_device(args[1]) and not on_device(args[0]))

    def _note_copies(self, name: str, args: Any, kwargs: Any, host: list[Tensor]) -> None:
        """Copies from host to device, asked for or needed for an index that lies on the CPU."""
        if host and name in ("_to_copy", "copy_"):
            self.report.bytes_to_device[self.report.phase] += host[-1].nbytes
            if not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])):
                self.report.note(COPY, f"{name} of {tuple(host[-1].shape)}")
        elif name in _INDEXING and any(tensor.dim() > 0 for tensor in host):
            self.report.note(COPY, f"{name} by an index on the CPU")

    def _note_kernels(self, func: Any, name: str, args: Any, kwargs: Any) -> None:
        """Launches, and the operations that have a catch."""
        if _alerts(name, args):
            self.report.note(NOT_DETERMINISTIC, name)
        if name in _ADDING or (name.lstrip("_").startswith(("index_put", "unsafe_index_put")) and args[3:] == (True,)):
            self.report.note(ATOMIC, name)
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if name in _NO_KERNEL or views:
            return
        launches, even = _foreach_launches(name, args)
        self.report.launch(name, launches)
        if not even:
            self.report.note(UNEVEN, f"{name} of {len(args[0])} tensors")
        if any(isinstance(t, FakeTensor) and t.dtype == torch.float64 and t.dim() for t in tree_leaves((args, kwargs))):
            self.report.note(FLOAT64, name)

    def _masked(self, name: str, args: Any) -> Any:
        """As if a mask had chosen every element."""
        with self.fake:
            if name not in ("index", "_unsafe_index"):
                return args[0] if name.endswith("_") else torch.empty_like(args[0])
            mask = next(tensor for tensor in args[1] if tensor is not None)
            return args[0].new_empty(mask.numel(), *args[0].shape[mask.dim() :])

    def _sized(self, name: str, values: Tensor) -> Any:
        """An answer whose size depends on values, as large as it can be."""
        with self.fake:
            if name == "nonzero":
                return values.new_empty(values.numel(), values.dim(), dtype=torch.int64)
            if name == "_unique2":
                kinds = values.new_empty(min(values.numel(), _UNIQUE))
                whole = torch.int64
                return kinds, values.new_empty(values.shape, dtype=whole), torch.empty_like(kinds, dtype=whole)
            if name == "masked_select":
                return values.new_empty(values.numel())
            if name in ("equal", "is_nonzero"):
                return True
        raise NotImplementedError(f"{name} on a device that is not there: add what it answers")


def _always(answer: object) -> Callable[..., object]:
    return lambda *_, **__: answer


def _zero_gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    return tuple(torch.zeros_like(tensor) for tensor in ([inputs] if isinstance(inputs, Tensor) else inputs))


def _zeros(name: str, args: Any, kwargs: Any) -> Any:
    """The number or the tensor that the host reads."""
    if name == "_to_copy":
        return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
    if name == "copy_":
        return args[0]
    if args[0].dtype == torch.bool:
        return False
    return 0.0 if args[0].is_floating_point() else 0


def _alerts(name: str, args: Any) -> bool:
    """Whether CUDA has no deterministic implementation."""
    if name == "cumsum":
        return bool(args[0].is_floating_point())
    if name == "nll_loss2d_forward":
        return bool(args[3] != 0)  # any reduction
    if name == "bincount":
        return len(args) > 1 and args[1] is not None
    return name in _ALERTING


def _foreach_launches(name: str, args: Any) -> tuple[int, bool]:
    """Launches of an operation, and whether a foreach kernel could take many tensors at once."""
    if not name.startswith("_foreach"):
        return 1, True
    tensors, others = args[0], args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
    even = len({tensor.dtype for tensor in tensors}) == 1
    if others and isinstance(others[0], Tensor):
        even = even and all(
            a.stride() == b.stride() and a.dtype == b.dtype for a, b in zip(tensors, others, strict=True)
        )
    return (max(1, len(tensors) // _CHUNK) if even else len(tensors)), even


def _applied(module: nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """nn.Module._apply without its ways of keeping a parameter's identity, none of which takes a fake one."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(function(parameter.detach()), parameter.requires_grad)
        part._buffers.update({name: function(t) for name, t in part._buffers.items() if t is not None})
    return module
