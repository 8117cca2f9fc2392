"""Chance."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from graphsparse.keep_rule import mix64
from graphsparse.params.scores.evidence import SCORES, Evidence

_PIECE = 1 << 20  # elements that are drawn at a time


@SCORES.register("random")
def at_random(evidence: Evidence) -> Tensor:
    """Uniform in [0, 1), by a hash of seed, name, step and position: the same in every process and on every device."""
    words = hashlib.sha256(f"{evidence.seed} {evidence.step} {evidence.name}".encode()).digest()
    drawn = torch.empty(evidence.weight.numel(), dtype=torch.float64)
    for first in range(0, len(drawn), _PIECE):
        part = drawn[first : first + _PIECE]
        keys = mix64(int.from_bytes(words[:8], "little"), np.arange(first, first + len(part)))
        part.copy_(torch.from_numpy((keys >> np.uint64(11)).astype(np.float64) * 2.0**-53))  # all 53 bits
    return drawn.view(evidence.weight.shape).to(evidence.weight.device)
