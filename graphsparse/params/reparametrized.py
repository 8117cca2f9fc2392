"""Weights that a module computes from its parameters: by a mask of torch's pruning, or by a parametrization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


class TorchMasks(Mapping[str, Tensor]):
    """The masks of ``torch.nn.utils.prune`` in a model, as bools under the names of the parameters that they mask.

    They are read anew at each access, since torch replaces them when a module is pruned again.

    Args:
        model: any module.

    Example:
        >>> import torch.nn.utils.prune as torch_prune
        >>> net = torch_prune.l1_unstructured(nn.Linear(2, 1), "weight", amount=1)
        >>> masks = TorchMasks(net)
        >>> list(masks), int(masks["weight_orig"].sum())
        (['weight_orig'], 1)
    """

    def __init__(self, model: nn.Module) -> None:
        self._homes: dict[str, tuple[nn.Module, str]] = {}
        for prefix, module in model.named_modules():
            for hook in _hooks(module):
                if isinstance(hook, BasePruningMethod):
                    name = hook._tensor_name
                    self._homes[f"{prefix}.{name}_orig".lstrip(".")] = module, f"{name}_mask"

    def __getitem__(self, name: str) -> Tensor:
        module, mask = self._homes[name]
        return module.get_buffer(mask) != 0

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def check_plain(model: nn.Module, names: Mapping[str, object]) -> None:
    """Refuse parameters that are not weights themselves, so that a zero in them is no zero of a weight.

    Args:
        model: any module.
        names: the parameters that are to be made sparse.

    Raises:
        ValueError: naming the first.

    Example:
        >>> net = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        >>> check_plain(net, {"bias": None})
        >>> check_plain(net, dict(net.named_parameters()))
        Traceback (most recent call last):
        ...
        ValueError: 'weight' is computed from 'parametrizations.weight.original0' (by _WeightNorm), and a zero there is
        no zero of the weight; make it plain with torch.nn.utils.parametrize.remove_parametrizations, or leave it out
        by which=
    """
    for name, (weight, maker, remedy) in computed_weights(model).items():
        if name in names:
            raise ValueError(
                f"{weight!r} is computed from {name!r} (by {maker}), and a zero there is no zero of the weight; "
                f"make it plain with {remedy}, or leave it out by which="
            )


def check_unpruned(model: nn.Module) -> None:
    """Refuse a model with masks of ``torch.nn.utils.prune`` where weights must be plain, to be copied and stored.

    Raises:
        ValueError: naming the first.
    """
    for name in TorchMasks(model):
        weight = name.removesuffix("_orig")
        raise ValueError(
            f"{weight!r} is masked by torch.nn.utils.prune, so it is computed anew in every call; make it plain with "
            f"torch.nn.utils.prune.remove(module, {weight.rpartition('.')[2]!r}), which leaves the zeros in it"
        )


def computed_weights(model: nn.Module) -> dict[str, tuple[str, str, str]]:
    """Parameters that weights are computed from: the weight, what computes it, and how that is undone."""
    found = {}
    for prefix, module in model.named_modules():
        lead = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for weight, chain in module.parametrizations.items():
                makers = " and ".join(type(link).__name__ for link in chain.children())
                ours = [str(link.remedy) for link in chain.children() if hasattr(link, "remedy")]
                remedy = next(iter(ours), "torch.nn.utils.parametrize.remove_parametrizations")
                for own, _ in chain.named_parameters(recurse=False):
                    name = f"{lead}parametrizations.{weight}.{own}"
                    found[name] = lead + weight, makers, remedy
        for hook in _hooks(module):
            if isinstance(hook, (WeightNorm, SpectralNorm)):
                remedy = "weight_norm" if isinstance(hook, WeightNorm) else "spectral_norm"
                for part in ("_g", "_v", "_orig"):
                    found[f"{lead}{hook.name}{part}"] = (
                        lead + hook.name,
                        type(hook).__name__,
                        f"torch.nn.utils.remove_{remedy}",
                    )
    return found


def _hooks(module: nn.Module) -> list[object]:
    return list(module._forward_pre_hooks.values())
