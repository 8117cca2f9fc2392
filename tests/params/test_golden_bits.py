"""What projections gave once they give for ever: numbers that are exact on any machine, and digests of the outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graphsparse.keep_rule import mix64
from graphsparse.params import Cubic, L0Projection, Linear, project_groups_, project_nm_

SMALL, LARGE = (6, 16, 3), (300, 200, 100)  # through torch, and through the compiled kernels
SETTINGS: dict[str, dict[str, Any]] = {
    "constant": {"sparsity": 0.9},
    "masked": {"sparsity": "0.8", "revive": False},
    "cubic": {"sparsity": 0.7, "schedule": Cubic(end=5), "revive": False},
    "linear": {"sparsity": 0.7, "schedule": Linear(end=4), "every": 2},
    "matrices": {"sparsity": 0.5, "which": "matrices"},
}
GOLDEN = {
    ("constant", SMALL): ("87675c70b40e8430", "4b899a8aa40fcd75"),
    ("masked", SMALL): ("12c6ebaaee98dd46", "13189831f4b9351f"),
    ("cubic", SMALL): ("c9f305ee7a38f781", "bc2547fbb1aeaa9d"),
    ("linear", SMALL): ("b497e0eae78bb143", "1a571ad581a6d960"),
    ("matrices", SMALL): ("66a8b270f3840f22", "64799da994584c2b"),
    ("constant", LARGE): ("ab4299d9ca7e11ee", "092c7684828368f7"),
    ("masked", LARGE): ("eea3946cf3ebe821", "68cda5e869ab6692"),
    ("cubic", LARGE): ("f446cf0fe23a5e89", "ff16c4a7551b4e79"),
    ("linear", LARGE): ("7c3de5a953b27062", "5cb4fa7d3671c2ec"),
    ("matrices", LARGE): ("7d30ee90d4404fd3", "07676c1a12a59c97"),
}


def hashed(seed: int, shape: torch.Size, levels: int) -> Tensor:
    """Multiples of 2 / levels in [-1, 1)."""
    size = shape.numel()
    whole = (mix64(seed, np.arange(size)) % levels).astype(np.int64) - levels // 2
    return torch.from_numpy(whole).view(shape) / (levels // 2)


def digest(masks: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, mask in masks.items():
        found.update(name.encode())
        found.update(mask.to(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@pytest.mark.filterwarnings("ignore:hardly anything is left")
@pytest.mark.parametrize(("how", "widths"), GOLDEN)
def test_six_steps_of_an_l0_projection(how: str, widths: tuple[int, ...]) -> None:
    net = nn.Sequential(*[nn.Linear(a, b) for a, b in pairwise(widths)])
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(hashed(i, parameter.shape, 2048))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    projection = L0Projection(net, **SETTINGS[how]).attach(optimizer)
    seen = []
    for step in range(6):
        for i, parameter in enumerate(net.parameters()):
            parameter.grad = hashed(100 * step + i + 50, parameter.shape, 64) / 2
        optimizer.step()
        seen += [digest(projection.masks), digest({name: p != 0 for name, p in net.named_parameters()})]
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters())).hexdigest()[:16]
    assert (hashlib.sha256("".join(seen).encode()).hexdigest()[:16], weights) == GOLDEN[how, widths]


def test_groups_and_runs() -> None:
    weights = hashed(5, torch.Size((60, 100)), 2048)
    found = [
        digest({"a": project([weights.clone()])[0]})
        for project in (
            lambda t: project_groups_(t, 0.3),
            lambda t: project_groups_(t, 0.3, 1),
            lambda t: project_nm_(t, 2, 4),
            lambda t: project_nm_(t, 3, 7, 0),
        )
    ]
    assert found == ["3c279dd2db2f4c1a", "6dc63633d07484a8", "544815ecb2cfd61e", "dcbf9224b7124c17"]
