"""Large new tensors in memory that the system hands out in huge pages."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def empty(shape: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor on the CPU, for results as long as an edge list.

    The memory is numpy's, which asks Linux for pages of 2 MB. torch does not, and the first write to every 4 KB of its
    new memory stops for the system: filling 160 MB took 0.25 s so, and 0.06 s in huge pages.

    Args:
        shape: of the tensor.
        dtype: of its elements.

    Example:
        >>> empty((2, 3), torch.int32).shape
        torch.Size([2, 3])
    """
    return torch.from_numpy(np.empty(shape, torch.empty(0, dtype=dtype).numpy().dtype))
