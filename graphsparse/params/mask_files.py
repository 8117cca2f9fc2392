"""Masks of a model as they are found, as torch's pruning has them, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from graphsparse.atomic_write import atomic_write
from graphsparse.errors import DataError
from graphsparse.hashing import masks_hash
from graphsparse.params.counting import Which, prunable
from graphsparse.params.masked import Link, homes
from graphsparse.params.reparametrized import TorchMasks, computed_weights
from graphsparse.tensor_bytes import to_bytes
from graphsparse.untrusted import read_bytes, reading

_FORMAT = "graphsparse.params.masks/1"
_ORIGINAL = ".parametrizations."


def masks_of(model: nn.Module, which: Which = "matrices") -> dict[str, Tensor]:
    """Which weights of a model are kept: what ``torch.nn.utils.prune`` masks, and elsewhere exact zeros.

    Args:
        model: any module; one that is being trained by :class:`StraightThrough` or :class:`Gates` shows the masks that
            its layers see, and a weight that is computed from others (``weight_norm``) what it is.
        which: the weights, as in :func:`prunable`. A bias that was initialised with zeros is no pruned one: by default
            matrices only.

    Returns:
        bool masks by the names that weights have without masks (``"0.weight"``, not ``"0.weight_orig"``).

    Example:
        >>> net = prune.l1_unstructured(nn.Linear(4, 2), "weight", amount=0.5)
        >>> {name: int(mask.sum()) for name, mask in masks_of(net).items()}
        {'weight': 4}
    """
    chosen = prunable(model, which)
    torch_masks, computed = TorchMasks(model), computed_weights(model)
    found = {}
    for name, parameter in chosen.items():
        if name in torch_masks:
            found[name.removesuffix("_orig")] = torch_masks[name].clone()
        elif _ORIGINAL in f".{name}" and (link := _masked(model, name)) is not None:
            found[_plain(name)] = link.kept(parameter).clone()
        elif name in computed:
            weight = computed[name][0]
            found[weight] = _seen(model, weight) != 0
        else:
            found[name] = parameter.detach() != 0
    return found


@torch.no_grad()
def _seen(model: nn.Module, name: str) -> Tensor:
    """A weight as its layer sees it, without a step of what computes it (a spectral norm estimates while it trains)."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    chains = [part for part in module.children() if part is getattr(module, "parametrizations", None)]
    modes = [(part, part.training) for chain in chains for part in chain.modules()]
    try:
        for chain in chains:
            chain.eval()
        found: Tensor = getattr(module, own)
        return found
    finally:
        for part, mode in modes:
            part.training = mode


def to_torch_prune_(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Give masks to ``torch.nn.utils.prune``: ``weight_orig`` and ``weight_mask``, which its own functions take.

    Args:
        model: changed in place; tied weights are masked in each of their modules.
        masks: bool, by the names of parameters.

    Returns:
        the model.

    Raises:
        ValueError: for a name or shape that the model has not, or a parameter that is masked already; nothing is
            changed then.
        TypeError: for a mask that is not bool.

    Example:
        >>> net = to_torch_prune_(nn.Linear(2, 1), {"weight": torch.tensor([[True, False]])})
        >>> [name for name, _ in net.named_parameters()], net.weight_mask
        (['bias', 'weight_orig'], tensor([[1., 0.]]))
        >>> prune.remove(net, "weight").weight[0, 1].item() == 0
        True
    """
    parameters = check_masks(model, masks)
    for name, mask in masks.items():
        for module, own in homes(model, parameters[name]):
            prune.custom_from_mask(module, own, mask.to(parameters[name].device))  # type: ignore[no-untyped-call]
    return model


def check_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """The parameters that masks belong to.

    Raises:
        TypeError: for a mask that is no bool tensor.
        ValueError: for a name or shape that the model has not.
    """
    _check_bools(masks)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, mask in masks.items():
        if name not in parameters:
            masked = name in {known.removesuffix("_orig") for known in TorchMasks(model)}
            why = "is masked already" if masked else f"is no parameter of the model: {list(parameters)[:8]}"
            for source, (weight, maker, remedy) in computed_weights(model).items():
                if weight == name:
                    why = f"is computed from {source!r} (by {maker}): make it plain with {remedy}"
            raise ValueError(f"there is a mask for {name!r}, which {why}")
        if parameters[name].shape != mask.shape:
            raise ValueError(
                f"the mask of {name!r} has shape {[*mask.shape]}, its parameter {[*parameters[name].shape]}"
            )
    return {name: parameters[name] for name in masks}


def save_masks(path: str | Path, masks: Mapping[str, Tensor]) -> None:
    """Write bool masks to one safetensors file, to lie beside a plain ``state_dict``; equal masks give equal bytes.

    Raises:
        TypeError: for a mask that is no bool tensor; the file that was there is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_masks(f"{folder}/masks.safetensors", {"w": torch.tensor([True, False])})
        ...     load_masks(f"{folder}/masks.safetensors")
        {'w': tensor([ True, False])}
    """
    _check_bools(masks)
    whole = {name: mask.detach().cpu().contiguous().clone() for name, mask in masks.items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_bytes(to_bytes(whole, {"format": _FORMAT, "sha256": masks_hash(whole)}))


def load_masks(path: str | Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read what :func:`save_masks` wrote.

    Args:
        path: the file.
        model: the masks must be of its parameters, by name and shape.

    Raises:
        DataError: for a file that is missing, damaged, or holds anything else.
        ValueError: for masks of another model.
    """
    with reading(path, DataError, "a whole file of masks"):
        content = read_bytes(path)
        masks: dict[str, Tensor] = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__", {})
        if metadata.get("format") != _FORMAT or any(mask.dtype != torch.bool for mask in masks.values()):
            raise DataError(f"{path} holds no masks; save_masks writes such files")
        if metadata.get("sha256") != masks_hash(masks):
            raise DataError(f"the masks {path} are damaged: their hash differs")
    if model is not None:
        check_masks(model, masks)
    return masks


def _check_bools(masks: Mapping[str, Tensor]) -> None:
    if not isinstance(masks, Mapping):
        raise TypeError(f"masks are bool tensors by the names of parameters, got {type(masks).__name__}")
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"the mask of {name!r} must be a bool tensor, got {getattr(mask, 'dtype', type(mask))}")


def _masked(model: nn.Module, name: str) -> Link | None:
    """The parametrization of ours that a parameter's weight passes through."""
    chain = model.get_submodule(name.rpartition(".")[0])
    assert isinstance(chain, parametrize.ParametrizationList)
    return next((link for link in chain if isinstance(link, Link)), None)


def _plain(name: str) -> str:
    """The name of the weight that a parametrization computes from a parameter."""
    lead, found, rest = f".{name}".rpartition(_ORIGINAL)
    return f"{lead}.{rest.rpartition('.')[0]}".lstrip(".") if found else name
