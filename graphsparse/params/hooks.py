"""Forward hooks that a compiled model has to see."""

from __future__ import annotations

import sys

import torch


def seen_by_compiled_models() -> None:
    """Let models that were compiled before see hooks that were registered since.

    torch does not look for new hooks when it takes code that it has compiled already, even that of another model of
    the same classes; so what was compiled is forgotten.
    """
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
