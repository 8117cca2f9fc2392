"""Chance."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from graphsparse.keep_rule import mix64
from graphsparse.params.scores.evidence import SCORES, Evidence


@SCORES.register("random")
def at_random(evidence: Evidence) -> Tensor:
    """Uniform in [0, 1), by a hash of seed, name, step and position: the same in every process and on every device."""
    words = hashlib.sha256(f"{evidence.seed} {evidence.step} {evidence.name}".encode()).digest()
    keys = mix64(int.from_bytes(words[:8], "little"), np.arange(evidence.weight.numel()))
    drawn = torch.from_numpy((keys >> np.uint64(11)).astype(np.float64) * 2.0**-53)  # all 53 bits of a float64
    return drawn.view(evidence.weight.shape).to(evidence.weight.device)
