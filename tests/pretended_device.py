"""An accelerator that is not there: its tensors live in memory, and never meet one of the CPU.

    with pretended():
        rows = torch.randn(4, 3).to(DEVICE)          # says that it is there
        rows @ torch.randn(3, 2)                     # AssertionError: a product of tensors of two devices

What is computed there is computed by the CPU's own kernels, so that a program may be held against itself on the CPU. As
on a GPU only copies go from one to the other, `numpy()` is refused, and single numbers may mix. The device goes by the
name of torch's own one without memory, which every build of torch can differentiate on.

What this does not show: that the kernels of a real device agree, and that collectives of NCCL work.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(torch.Tensor):
    """A tensor of the pretended device, around one of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    is_meta = False  # it has memory

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def tolist(self):
        return self.inner.tolist()

    def item(self):
        return self.inner.item()

    def __bool__(self):
        return bool(self.inner)

    def __int__(self):
        return int(self.inner)

    def __float__(self):
        return float(self.inner)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class Pretended(TorchDispatchMode):
    """Makes tensors that are asked for on the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def computed(func, args, kwargs):
    """What `func` finds, on the device where it is asked for there or an argument is there."""
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = {id(leaf.inner): leaf for leaf in leaves if isinstance(leaf, There)}
    here = [leaf for leaf in leaves if not isinstance(leaf, There) and leaf.dim()]
    if func not in COPIES and there and here:
        raise AssertionError(f"{func} of tensors of two devices: {[tuple(leaf.shape) for leaf in here]} on the CPU")
    asked = kwargs.get("device")
    on_device = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
    if func is torch.ops.aten.copy_.default:
        on_device = isinstance(args[0], There)
    inner_args, inner_kwargs = tree_map(lambda leaf: leaf.inner if isinstance(leaf, There) else leaf, (args, kwargs))
    found = func(*inner_args, **(inner_kwargs if asked is None else {**inner_kwargs, "device": "cpu"}))
    if not on_device:
        return found
    return tree_map(lambda leaf: _there(leaf, there) if isinstance(leaf, torch.Tensor) else leaf, found)


def _there(tensor, known):
    """The tensor that was changed in place, or a new one."""
    return known[id(tensor)] if id(tensor) in known else There(tensor)


@contextlib.contextmanager
def pretended():
    """Within it tensors can be moved to `DEVICE`; nothing is compiled for it."""
    with (
        mock.patch("torch.compile", lambda function: function),
        mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", return_value=["cpu", DEVICE.type]),
        Pretended(),
    ):
        yield DEVICE
