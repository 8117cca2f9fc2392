"""Several processes that train one model together, as ``torchrun`` starts them; alone, everything here does nothing.

Each process learns from its own part of every batch; gradients are summed, so that weights stay equal bit for bit. What
is computed twice and might differ in the last bits (on GPUs) is the first process's.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def count() -> int:
    """How many processes there are.

    Example:
        >>> count(), own(), is_first()
        (1, 0, True)
    """
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return own() == 0


def asked_for() -> int:
    """How many processes ``torchrun`` has started, of which this is one; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def join(device: str | torch.device | None = "cpu") -> str:
    """Meet the processes that ``torchrun`` started, once; the device of this one.

    Args:
        device: ``"cpu"`` (None), or ``"cuda"`` (``"auto"``, where there are GPUs) for one GPU each. Alone it comes back
            as it is.

    Raises:
        ValueError: for one GPU by number, which several processes would share, or fewer GPUs than processes.
    """
    name = str(device or "cpu")
    if asked_for() < 2:
        return name
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if gpus else "cpu"
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if name not in ("cpu", "cuda", f"cuda:{place}"):
        raise ValueError(f"with torchrun the device is cpu, cuda or auto (a GPU for each process), got {name!r}")
    if name != "cpu":
        if place >= gpus:
            raise ValueError(f"torchrun started process {place + 1} on a machine with {gpus} GPUs: start one for each")
        name = f"cuda:{place}"
        torch.cuda.set_device(place)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
        atexit.register(dist.destroy_process_group)
    return name


def sum_gradients(model: nn.Module) -> None:
    """Replace each gradient by the sum over all processes; a parameter that none of them used keeps none."""
    if count() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    parts = [torch.zeros_like(p).view(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters]
    flat = torch.cat([used, *(part.to(used.dtype) for part in parts)])
    dist.all_reduce(flat)
    used, *sums = torch.split(flat, [len(parameters), *(part.numel() for part in parts)])
    for parameter, is_used, total in zip(parameters, used.tolist(), sums, strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if is_used else None


def summed(value: float, device: torch.device | str = "cpu") -> float:
    """The sum of a number over all processes."""
    if count() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(found)
    return float(found)


def number_of_first(value: float, device: torch.device | str = "cpu") -> float:
    """The first process's number, in all of them."""
    return value if count() == 1 else float(of_first(torch.tensor(value, dtype=torch.float64, device=device)))


def of_first(tensor: Tensor) -> Tensor:
    """The first process's tensor, in all of them; all have one of that shape."""
    if count() > 1:
        tensor = tensor.contiguous()
        dist.broadcast(tensor, 0)
    return tensor


def share(tensors: Iterable[Tensor]) -> None:
    """Write the first process's values into tensors of all, such as the buffers of a model."""
    if count() > 1:
        for tensor in tensors:
            tensor.copy_(of_first(tensor))


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        dist.barrier()
