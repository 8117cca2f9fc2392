"""Model and data on two devices, without a second device: tensors claim to lie elsewhere, and refuse to meet others."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import graphsparse as gs

ELSEWHERE = torch.device("xpu", 0)
CPU = torch.device("cpu")
MEETING = ("copy_", "__set__", "__getitem__", "__setitem__", "_has_compatible_shallow_copy_type")  # of two places


class Elsewhere(TorchFunctionMode):
    """Every function of torch sees whose memory was moved ``elsewhere``; two places in one call are an error.

    Memory is told by its address, and held until the end, so that no address is given twice.
    """

    def __init__(self):
        super().__init__()
        self.addresses, self.held = set(), []

    def claim(self, values):
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and value.layout == torch.strided and value.numel():
                self.addresses.add(value.untyped_storage().data_ptr())
                self.held.append(value.untyped_storage())
        return values

    def claimed(self, value):
        strided = value.layout == torch.strided and value.numel() > 0
        return strided and value.untyped_storage().data_ptr() in self.addresses

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return ELSEWHERE if self.claimed(args[0]) else CPU
        if func == Tensor.is_cpu.__get__:
            return not self.claimed(args[0])
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
        if there != self.claimed(value) and value.layout == torch.strided:
            outputs = outputs.clone()
            self.claim(outputs) if there else None
        return outputs


def moved(module):
    """A copy whose parameters and buffers lie elsewhere, to be called under the mode."""
    return copy.deepcopy(module).to(ELSEWHERE)


def test_the_mode_tells_places_apart():
    with Elsewhere():
        here, there = torch.ones(3), torch.ones(3).to(ELSEWHERE)
        assert there.device == ELSEWHERE
        assert here.device == (there + 1).cpu().device == CPU
        assert (there * 2 + there.sum()).device == torch.zeros(2, device=ELSEWHERE).device == ELSEWHERE
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        layer = nn.Linear(3, 2).to(ELSEWHERE)
        layer(there).sum().backward()
        assert layer.weight.device == layer.weight.grad.device == ELSEWHERE
        with pytest.raises(RuntimeError, match="same device"):
            layer(here)


SIZES = {"edge_keep": 0.7, "weight_keep": 0.6, "epochs": 3}


@pytest.mark.parametrize("method", ["teddy", "ugs", "wd-glt", "reliance", "imp", "random-weights", "no-edges"])
@pytest.mark.parametrize("place", ["model", "device", "data"])
def test_model_and_data_may_lie_in_two_places(blocks, make_plain, method, place):
    """``net.cuda()`` with data on the CPU, ``device="cuda"``, and data on the GPU with a model on the CPU."""
    plain = gs.find_ticket(make_plain(blocks), blocks, method=method, **SIZES)
    with Elsewhere():
        model, data = make_plain(blocks), copy.copy(blocks)
        if place == "model":
            model = moved(model)
        if place == "data":
            for name in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
                data[name] = data[name].to(ELSEWHERE)
        options = {"device": ELSEWHERE} if place == "device" else {}
        ticket = gs.find_ticket(model, data, method=method, **SIZES, **options)
        assert ticket.edge_mask.device == ticket.logits.device == CPU
        ticket.verify(blocks, model=moved(make_plain(blocks)))
        ticket.verify(data, model=make_plain(blocks))
    assert torch.equal(plain.edge_mask, ticket.edge_mask)
    assert ticket.metrics["macs"] == plain.metrics["macs"]
    assert torch.allclose(plain.logits, ticket.logits, atol=1e-4)
