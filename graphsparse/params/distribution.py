"""How many weights each tensor keeps: the share of every tensor in a count that is fixed for all of them together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache

from graphsparse.keep_rule import Keep, exact_fraction
from graphsparse.registry import Registry

Shapes = Mapping[str, Sequence[int]]
Densities = Callable[[Shapes], Mapping[str, Keep] | None]
Distribution = str | Mapping[str, Keep]


def _checked(name: str, entry: object) -> Densities:
    if not callable(entry):
        raise TypeError(f"a weight distribution is a function from shapes to densities, {name!r} is {entry!r:.50}")
    found: Densities = entry
    return found


DISTRIBUTIONS: Registry[Densities] = Registry("weight distribution", check=_checked)


@DISTRIBUTIONS.register("global")
def one_pool(shapes: Shapes) -> None:
    """All tensors compete in one pool: each keeps what wins. A tensor of small weights may run empty."""


@DISTRIBUTIONS.register("uniform")
def uniform(shapes: Shapes) -> dict[str, Fraction]:
    """The same density everywhere."""
    return dict.fromkeys(shapes, Fraction(1))


@DISTRIBUTIONS.register("er")
def erdos_renyi(shapes: Shapes) -> dict[str, Fraction]:
    r"""Density proportional to :math:`(n_{in} + n_{out}) / (n_{in} n_{out})`, whatever the kernel.

    The density of a vector, which has one side only, is that of :func:`erdos_renyi_kernel`.

    Source: Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse connectivity inspired
    by network science", 2018.
    """
    return erdos_renyi_kernel({name: shape[:2] for name, shape in shapes.items()})


@DISTRIBUTIONS.register("erk")
def erdos_renyi_kernel(shapes: Shapes) -> dict[str, Fraction]:
    r"""Density proportional to :math:`\sum_i d_i / \prod_i d_i` over all dimensions, those of a kernel among them.

    Source: Evci et al., "Rigging the lottery: making all tickets winners", ICML 2020.

    Example:
        >>> {name: str(density) for name, density in erdos_renyi_kernel({"w": (64, 256), "b": (64,)}).items()}
        {'w': '5/256', 'b': '1'}
    """
    sides = {name: list(shape) or [1] for name, shape in shapes.items()}
    return {name: Fraction(sum(side) or 1, math.prod(side) or 1) for name, side in sides.items()}


def check_distribution(distribution: Distribution) -> None:
    """Raise an error for an unknown name of a distribution or for densities that are not positive numbers.

    Raises:
        TypeError: if it is neither a name nor a mapping, or a density is no number.
        ValueError: for an unknown name (close ones are named), or a density that is not positive.
    """
    if isinstance(distribution, str):
        DISTRIBUTIONS.find(distribution)
    elif isinstance(distribution, Mapping):
        _read(distribution)
    else:
        raise TypeError(
            f"a distribution is one of {', '.join(map(repr, DISTRIBUTIONS.names()))} or a density for each tensor by "
            f"name, got {type(distribution).__name__}"
        )


def plain_distribution(distribution: Distribution) -> str | dict[str, str]:
    """A distribution as plain values, for JSON and checkpoints."""
    if isinstance(distribution, str):
        return DISTRIBUTIONS.key(distribution)
    return {name: str(density) for name, density in _read(distribution).items()}


def allot(
    distribution: Distribution,
    shapes: Shapes,
    k: int,
    limits: Mapping[str, int] | None = None,
    units: Mapping[str, int] | None = None,
) -> dict[str, int] | None:
    r"""How many of ``k`` kept weights each tensor keeps; exactly ``k`` in all.

    With relative densities :math:`r_l` and sizes :math:`n_l`, tensor l keeps :math:`\min(1, \epsilon r_l)\, n_l`, with
    the :math:`\epsilon` at which these sum up to k: a tensor that would keep more than it has is kept whole, and the
    rest is solved again. Counts are rounded by largest remainder, in exact arithmetic; ties go to the earlier tensor.

    Args:
        distribution: a name of :data:`DISTRIBUTIONS` (``"global"``, ``"uniform"``, ``"er"``, ``"erk"``), ``"module:
            attribute"``, or the relative density :math:`r_l` of each tensor by name.
        shapes: of the tensors, by name.
        k: how many weights are kept, from 0 to all that ``limits`` allow.
        limits: how many each tensor can keep, if that is less than its size.
        units: what is counted of each tensor, if not its weights one by one: its rows or blocks. Then ``k`` of those
            are shared out, and densities are still those of the shapes.

    Returns:
        The count of each tensor by name; None for one pool, in which all tensors compete.

    Raises:
        ValueError: if ``k`` is more than there are, or densities are missing, unknown or not positive.
        TypeError: for a density that is no number.

    Source: Evci et al., ICML 2020, appendix; Mocanu et al. 2018.

    Example:
        >>> shapes = {"first": (64, 256), "last": (256, 10)}
        >>> allot("uniform", shapes, 1000), allot("erk", shapes, 1000), allot({"first": 1, "last": 9}, shapes, 5000)
        ({'first': 865, 'last': 135}, {'first': 546, 'last': 454}, {'first': 2440, 'last': 2560})
    """
    densities = DISTRIBUTIONS.find(distribution)(shapes) if isinstance(distribution, str) else distribution
    if densities is None:
        return None
    relative = _read(densities)
    differing = sorted(relative.keys() ^ shapes.keys())
    if differing:
        problem = "has no density for" if differing[0] in shapes else "has a density for an unknown tensor,"
        raise ValueError(f"the distribution {problem} {differing[0]!r}; the tensors are {list(shapes)[:8]}")
    sizes = {name: math.prod(shape) if units is None else units[name] for name, shape in shapes.items()}
    most = sizes if limits is None else {name: limits[name] for name in sizes}
    if not 0 <= k <= sum(most.values()):
        raise ValueError(f"{k} weights cannot be kept of {sum(most.values())}")
    parts = tuple(relative[name] * size for name, size in sizes.items())
    return dict(zip(sizes, share_out(parts, tuple(most.values()), k), strict=True))


@lru_cache(maxsize=64)
def share_out(parts: tuple[Fraction, ...], limits: tuple[int, ...], k: int) -> tuple[int, ...]:
    """Share ``k`` in proportion to ``parts``, nowhere above the limit."""
    counts = [0] * len(parts)
    left = [i for i, part in enumerate(parts) if part and limits[i]]
    while True:
        whole = sum((parts[i] for i in left), Fraction(0))
        full = [i for i in left if k * parts[i] >= limits[i] * whole]
        if not full:
            break
        for i in full:
            counts[i] = limits[i]
        k -= sum(limits[i] for i in full)
        left = [i for i in left if i not in full]
    quotas = {i: k * parts[i] / whole for i in left}
    for i, quota in quotas.items():
        counts[i] = math.floor(quota)
    spare = k - sum(counts[i] for i in left)
    for i in sorted(left, key=lambda i: (counts[i] - quotas[i], i))[:spare]:
        counts[i] += 1
    return tuple(counts)


def _read(densities: Mapping[str, Keep]) -> dict[str, Fraction]:
    relative = {name: exact_fraction(density, f"the density of {name!r}") for name, density in densities.items()}
    for name, density in relative.items():
        if density <= 0:
            raise ValueError(f"the density of {name!r} must be positive, got {densities[name]}")
    return relative
