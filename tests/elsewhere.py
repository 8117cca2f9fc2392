"""A second device that is not there: tensors claim to lie elsewhere, and refuse to meet others."""

import copy

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

ELSEWHERE = torch.device("xpu", 0)
CPU = torch.device("cpu")
MEETING = ("copy_", "__set__", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type")  # of two places


def parts(value):
    """The dense tensors, with memory of their own, of which a dense or sparse tensor consists."""
    if value.layout == torch.strided:
        return [value] if value.numel() else []
    if value.layout == torch.sparse_coo:
        found = [value._indices(), value._values()]
    elif value.layout == torch.sparse_csr:
        found = [value.crow_indices(), value.col_indices(), value.values()]
    elif value.layout == torch.sparse_csc:
        found = [value.ccol_indices(), value.row_indices(), value.values()]
    else:
        raise TypeError(f"what lies elsewhere is not known of the layout {value.layout}")
    return [part for part in found if part.numel()]


class Elsewhere(TorchFunctionMode):
    """Every function of torch sees whose memory was moved ``elsewhere``; two places in one call are an error.

    Memory is told by its address, and held until the end, so that no address is given twice.
    """

    def __init__(self):
        super().__init__()
        self.addresses, self.held = set(), []

    def claim(self, values):
        for value in tree_leaves(values):
            for part in parts(value) if isinstance(value, Tensor) else ():
                self.addresses.add(part.untyped_storage().data_ptr())
                self.held.append(part.untyped_storage())
        return values

    def claimed(self, value):
        try:
            return any(part.untyped_storage().data_ptr() in self.addresses for part in parts(value))
        except RuntimeError:  # what a trace has left has no memory
            return False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if torch.compiler.is_compiling():  # while a network is traced nothing has memory
            return func(*args, **kwargs)
        if func == Tensor.device.__get__:
            return ELSEWHERE if self.claimed(args[0]) else func(*args)
        if func == Tensor.is_cpu.__get__:
            return func(*args) and not self.claimed(args[0])
        if func in (Tensor.to, Tensor.cpu):
            return self.moved(func, args, kwargs)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor) and value.numel()]
        here = [value for value in tensors if not self.claimed(value)]
        there = [value for value in tensors if self.claimed(value)]
        device = kwargs.get("device")
        if device is not None and torch.device(device) == ELSEWHERE:
            kwargs["device"] = CPU
            return self.claim(func(*args, **kwargs))
        if func == Tensor.grad.__get__:
            return self.claim(func(*args)) if there else func(*args)
        if func == Tensor.numpy and there:
            raise TypeError("can't convert a tensor that lies elsewhere to numpy")
        if there and any(value.dim() for value in here) and func.__name__ not in MEETING:
            raise RuntimeError(f"Expected all tensors to be on the same device in {func.__name__}")
        if func.__name__ == "__getitem__" and not self.claimed(args[0]) and there:
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor")
        outputs = func(*args, **kwargs)
        return self.claim(outputs) if there and func.__name__ not in ("copy_", "__set__", "__setitem__") else outputs

    def moved(self, func, args, kwargs):
        asked = [args[1]] if func == Tensor.to and len(args) > 1 else [kwargs.get("device")]
        asked = [CPU] if func == Tensor.cpu else asked
        value, rest = args[0], args[1:]
        target = asked[0]
        if isinstance(target, Tensor):  # its place and its type
            rest, target = (target.dtype,), ELSEWHERE if self.claimed(target) else CPU
        if not isinstance(target, (str, torch.device)):
            outputs = func(*args, **kwargs)
            return self.claim(outputs) if self.claimed(value) else outputs
        there = torch.device(target) == ELSEWHERE
        plain = {name: item for name, item in kwargs.items() if name not in ("device", "non_blocking")}
        types = [item for item in rest if isinstance(item, torch.dtype)]
        outputs = value.to(*types, **plain) if types or plain else value
        if there != self.claimed(value):
            outputs = outputs.clone()
        return self.claim(outputs) if there else outputs


def moved(module, place=ELSEWHERE):
    """A copy whose parameters and buffers lie there; elsewhere is known under the mode only."""
    return copy.deepcopy(module).to(place)
