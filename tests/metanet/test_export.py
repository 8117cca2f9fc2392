"""A pruned network is a network: exported, saved without its class, compiled, written as ONNX."""

import onnx
import pytest
import torch
from metanet_networks import NETWORKS, randomised, some_inputs
from onnx.reference import ReferenceEvaluator

from graphsparse.metanet import Channels, NetworkGraph, shrink
from graphsparse.metanet.channels import removal_order
from graphsparse.metanet.channels.sets import keep_after

ZOO = ["shuffle", "mobilenet", "unet", "vit-torch"]


def pruned(name):
    torch.manual_seed(0)
    net, inputs = NETWORKS[name]()
    graph = NetworkGraph.from_module(randomised(net), inputs)
    channels = Channels.of(graph)
    steps = removal_order(channels, torch.rand(len(channels.group_of)))
    return shrink(graph, keep_after(channels, steps[: len(steps) // 2]), inputs)[0].eval(), some_inputs(inputs)


@pytest.mark.parametrize("name", ZOO)
def test_exported_saved_and_read_without_its_class(name, tmp_path):
    small, inputs = pruned(name)
    torch.export.save(torch.export.export(small, inputs), tmp_path / "small.pt2")
    again = torch.export.load(tmp_path / "small.pt2").module()
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), small(*inputs), rtol=1e-4, atol=1e-5)


def test_compiled():
    small, inputs = pruned("mobilenet")
    with torch.no_grad():
        compiled = torch.compile(small, backend="aot_eager")(*inputs)
        torch.testing.assert_close(compiled, small(*inputs), rtol=1e-4, atol=1e-5)


def test_onnx(tmp_path):
    small, inputs = pruned("mobilenet")
    torch.onnx.export(small, inputs, str(tmp_path / "small.onnx"), dynamo=True, verbose=False)
    model = ReferenceEvaluator(onnx.load(tmp_path / "small.onnx"))
    (found,) = model.run(None, dict(zip(model.input_names, (x.numpy() for x in inputs), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), small(*inputs), rtol=1e-3, atol=1e-4)
