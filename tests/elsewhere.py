"""A device that is not there: tensors that say they are on CUDA, are computed on the CPU, and tell who waits for them.

What waits on a GPU: reading a number (`item`, `bool`, an integer index by a tensor), results whose size depends on
values (`nonzero`, `unique`, a mask as index), and copies to or from the device that are not `non_blocking`.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import mdp

DEVICE = torch.device("cuda:0")
_WAITING = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "unique_consecutive", "masked_select", "equal")
_COPIES = ("_to_copy", "copy_")
_PACKAGE, _TESTS = Path(mdp.__file__).parent, Path(__file__).parent


class Elsewhere(Tensor):
    """A tensor of the device; `inner` has its values.  torch's own part takes it for a CPU tensor without memory."""

    inner: Tensor
    is_cuda = True  # type: ignore[assignment]
    device = DEVICE  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype
        )
        made.inner = inner
        return made

    def cpu(self, *_: Any) -> Tensor:
        _wait("cpu")
        return self.inner

    def tolist(self) -> Any:
        _wait("tolist")
        return self.inner.tolist()

    def new_tensor(self, data: Any, **others: Any) -> Tensor:
        """Copies to the device and waits for it, as torch.tensor does."""
        _wait("new_tensor")
        return Elsewhere(self.inner.new_tensor(data, **others))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees also what makes tensors on the device from nothing, and copies onto it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_waits: list[str] = []


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU; what has a part on the device gives tensors there."""
    name, given = func.overloadpacket.__name__, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    there = any(isinstance(t, Elsewhere) for t in given)
    target = kwargs.get("device")
    onto = target is not None and torch.device(target).type == DEVICE.type
    if there or onto:
        _note(name, args, kwargs, there, onto)
    result = func(*tree_map(_inside, args), **{**tree_map(_inside, kwargs), **({"device": "cpu"} if onto else {})})
    if func._schema.is_mutable and name.endswith("_"):
        return args[0]
    if name == "_local_scalar_dense" or not (onto or (there and target is None)):
        return result
    return tree_map(lambda t: Elsewhere(t) if isinstance(t, Tensor) else t, result)


def _note(name: str, args: Any, kwargs: dict[str, Any], there: bool, onto: bool) -> None:
    masks = name in ("index", "index_put_", "index_put") and any(
        isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1]
    )
    blocking = False
    if name in _COPIES:
        source, end = (args[1], args[0]) if name == "copy_" else (args[0], None)
        to_device = isinstance(end, Elsewhere) if end is not None else onto or (kwargs.get("device") is None and there)
        quick = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
        blocking = isinstance(source, Elsewhere) != to_device and not quick and (source.dim() > 0 or name == "_to_copy")
    if name in _WAITING or masks or blocking:
        _wait(name)


def _wait(name: str) -> None:
    """Notes the line of ours that waits."""
    line = [frame for frame in traceback.extract_stack() if _ours(Path(frame.filename))]
    _waits.append(f"{name} in {line[-1].name}: {line[-1].line}")


def _ours(file: Path) -> bool:
    """Whether it is a file of the package or a test; the clone's own folder, which may be called mdp, says nothing."""
    return file.is_relative_to(_PACKAGE) or (file.parent == _TESTS and file.name.startswith("test_"))


def _inside(value: Any) -> Any:
    return value.inner if isinstance(value, Elsewhere) else value


def moved_(network: nn.Module) -> None:
    """The network's weights and running statistics, on the device."""
    for part in network.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(Elsewhere(parameter.detach()), parameter.requires_grad)
        part._buffers.update({name: Elsewhere(t) for name, t in part._buffers.items() if t is not None})


_make = torch.tensor


def _tensor(data: Any, device: Any = None, **others: Any) -> Tensor:
    """torch.tensor, which copies to the device and waits for it."""
    if device is None or torch.device(device).type != DEVICE.type:
        return _make(data, device=device, **others)
    _wait("tensor")
    return Elsewhere(_make(data, **others))


@contextmanager
def pretended() -> Iterator[list[str]]:
    """Inside, `DEVICE` can be used; the list tells of everything that waited for it."""
    _waits.clear()
    with pytest.MonkeyPatch.context() as patch, _Factories():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch, "tensor", _tensor)
        yield _waits
