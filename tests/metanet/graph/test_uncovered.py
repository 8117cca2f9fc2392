"""What is not covered raises one sentence that names the operation and the module, and changes nothing."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from metanet_networks import make, same_bits
from torch import nn

from graphsparse.errors import TraceError
from graphsparse.metanet import NetworkGraph
from graphsparse.metanet.graph.rules import RULES


class Inner(nn.Module):
    def __init__(self, function, *shapes):
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(torch.rand(shape) for shape in shapes)

    def forward(self, *inputs):
        return self.function(*inputs, *self.weights)


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.first, self.odd = nn.Linear(4, 4), inner

    def forward(self, x):
        return self.odd(self.first(x))


def chosen_by_data(x, table):
    return table[x.argmax(-1)]


def weight_from_data(x, weight):
    return F.linear(x, x[:4] * 2.0)


def distances(x, w):
    return torch.cdist(x, w)


COMPUTED = "computed from parameters"
CASES = {  # name -> (function of the activation and the parameters, shapes of the parameters, words of the error)
    "distances": (distances, [(3, 4)], "cdist"),
    "indices from activations": (chosen_by_data, [(4, 3)], r"aten\.index\.Tensor.*indices are computed"),
    "a weight made of weights": (lambda x, a, b: x @ (a @ b), [(4, 2), (2, 4)], COMPUTED),
    "a weight from activations": (weight_from_data, [(1,)], r"aten\.linear.*computed from activations"),
    "a diagonal": (lambda x: torch.einsum("bb->b", x), [], "einsum.*repeats an axis"),
    "rows looked up by activations": (
        lambda x, w: F.embedding(x.argmax(-1), w),
        [(4, 3)],
        r"embedding.*indices are computed",
    ),
    "a table of activations": (lambda x: F.embedding(torch.tensor([0, 1]), x), [], "its table is not a parameter"),
    "a slope from activations": (lambda x: F.prelu(x, x.mean(0)), [], "its slope is not a parameter"),
    "a gain from activations": (
        lambda x: F.layer_norm(x, (4,), weight=x[0]),
        [],
        "its gamma is computed from activations",
    ),
    "a kernel from activations": (lambda x: F.conv1d(x[None], x[:, :, None]), [], r"conv1d.*computed from activations"),
    "a bias from activations": (lambda x, w: F.linear(x, w, x[0]), [(4, 4)], "its bias is computed from activations"),
    "a mean of weights": (lambda x, w: F.linear(x, w.mean(0)), [(2, 4, 4)], "its weight is a mean of parameters"),
    "a kernel that is a mean": (lambda x, w: F.conv1d(x[None], w.mean(0)), [(2, 4, 4, 1)], "its weight is a mean"),
    "means joined": (lambda x, w: F.linear(x, torch.cat([w.mean(0), w.mean(0)])), [(2, 2, 4)], COMPUTED),
    "a mean met": (lambda x, w: x * w.mean(0), [(2, 4)], "meets what is computed from a whole parameter"),
    "a sum over a batch": (lambda x, w: torch.addbmm(w, x[None], x[None]), [(4, 4)], "sums over a batch"),
    "scattered by activations": (
        lambda x: torch.zeros(4, 4).scatter_add(0, x.argmax(0, keepdim=True), x),
        [],
        r"scatter_add.*indices are computed",
    ),
    "written where activations say": (
        lambda x: torch.zeros(4, 4).index_put((x.argmax(0),), x),
        [],
        r"index_put.*indices are computed",
    ),
    "the largest weights": (lambda x, w: x * w.topk(4).values, [(6,)], COMPUTED),
    "a bilinear weight from activations": (
        lambda x: F.bilinear(x, x, x.expand(4, 4, 4)),
        [],
        "its weight is no parameter",
    ),
    "quantized": (lambda x: torch.fake_quantize_per_tensor_affine(x, 1.0, 0, 0, 9), [], "prepared for quantization"),
}


@pytest.mark.parametrize("case", CASES)
def test_operation_and_module_are_named(case):
    function, shapes, words = CASES[case]
    module = Outer(Inner(function, *shapes))
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(TraceError, match=words) as caught:
        NetworkGraph.from_module(module, torch.rand(4, 4))
    assert "'odd'" in str(caught.value)
    assert "Inner" in str(caught.value)
    assert same_bits(module.state_dict(), before)


def test_a_module_that_asks_its_data_for_a_number():
    module = Inner(lambda x, w: x @ w if float(x.sum()) > 0 else x, (4, 4))
    with pytest.raises(TraceError, match=r"operation aten\.item.* \(Inner, |torch\.export cannot trace Inner"):
        NetworkGraph.from_module(module, torch.rand(4, 4))


def test_a_module_that_cannot_be_exported():
    module = Inner(lambda x, w: torch.from_numpy(x.numpy()) @ w, (4, 4))
    with pytest.raises(TraceError, match=r"torch\.export cannot trace Inner"):
        NetworkGraph.from_module(module, torch.rand(4, 4))


def test_lazy_parameters():
    with pytest.raises(TraceError, match=r"'0\.weight' has no shape yet"):
        NetworkGraph.from_module(nn.Sequential(nn.LazyLinear(3)), torch.rand(2, 4))


def test_complex_numbers():
    with pytest.raises(TraceError, match="parameter 'weight' is complex"):
        NetworkGraph.from_module(nn.Linear(2, 2, dtype=torch.complex64), torch.zeros(1, 2, dtype=torch.complex64))
    with pytest.raises(TraceError, match="input 0 is complex"):
        NetworkGraph.from_module(nn.Identity(), torch.zeros(1, 2, dtype=torch.complex64))


def test_wrong_inputs():
    with pytest.raises(TraceError, match="cannot trace Linear"):
        NetworkGraph.from_module(nn.Linear(3, 2), torch.rand(2, 4))


def test_wrong_values():
    graph = NetworkGraph.from_module(nn.Linear(3, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"no \(3, 3\); it has \(\)"):
        graph.with_values({(3, 3): torch.zeros(1, 9)})
    with pytest.raises(ValueError, match=r"have shape \(1, 1\), not \(2, 1\)"):
        graph.with_values(banks={"bias": torch.zeros(1, 1)})
    with pytest.raises(KeyError):
        graph.slots("nothing")


def test_a_failed_trace_leaves_the_next_one_alone():
    with pytest.raises(TraceError):
        NetworkGraph.from_module(Outer(Inner(distances, (3, 4))), torch.rand(4, 4))
    module, inputs = make("mlp")
    assert same_bits(NetworkGraph.from_module(module, inputs).to_state_dict(), module.state_dict())


def test_what_cannot_be_copied_is_named():
    module = nn.Linear(3, 3)
    module.lock = threading.Lock()
    with pytest.raises(TraceError, match=r"Linear cannot be copied: cannot pickle '_thread\.lock' object"):
        NetworkGraph.from_module(module, torch.zeros(2, 3))


def test_a_rule_is_a_function():
    with pytest.raises(TypeError, match="the rule of the operation 'frobnicate' is a function, not a int"):
        RULES.register("frobnicate", 3)


def test_a_branch_on_the_data_is_named():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3)

        def forward(self, x):
            return torch.cond(x.sum() > 0, self.first, lambda x: x * 2, (x,))

    with pytest.raises(TraceError, match=r"branches or loops on its data \(true_graph_0\)"):
        NetworkGraph.from_module(Branch(), torch.zeros(2, 3))
