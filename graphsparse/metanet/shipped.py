"""The metanetworks that come with the package."""

from __future__ import annotations

from typing import Any

from graphsparse.fit.fingerprint import model_hash
from graphsparse.metanet.graph import kernel_name
from graphsparse.metanet.metanetwork import PRETRAINED, MetaNetwork


def pretrained() -> dict[str, dict[str, Any]]:
    """The names that `MetaNetwork.from_pretrained` takes, with what each was trained on, its figures and its hash.

    Of each: ``mode``, ``kernels`` that it can read, ``parameters``, ``hash`` (SHA-256 over names and values of its
    weights), and ``notes``, what its training wrote beside them: the study, the objective, the area under accuracy
    against log speed-up on held-out networks, that of the plain criterion and of least squares there, and versions.

    Example:
        >>> found = pretrained()["resnet-tiny"]
        >>> found["mode"], found["parameters"], found["kernels"], found["notes"]["study"]
        ('repair', 36381, ['linear', '1x1', '3x3'], 'fashion')
    """
    found = {}
    for file in sorted(PRETRAINED.glob("*.safetensors")):
        metanet = MetaNetwork.load(file)
        found[file.stem] = {
            "mode": metanet.mode,
            "kernels": [kernel_name(kernel) for kernel in metanet.kernels],
            "parameters": sum(parameter.numel() for parameter in metanet.parameters()),
            "hash": model_hash(metanet),
            "notes": metanet.notes,
        }
    return found
