"""A metanetwork as an importance of Torch-Pruning: what it makes small goes first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.metanet.graph import NetworkGraph
from graphsparse.metanet.metanetwork import MetaNetwork

State = dict[str, Tensor]


class MetaImportance:
    r"""Group l2 norm of the weights that a metanetwork of mode "change" would give a module.

    .. math:: I_k = \sum_{w' \in \text{group},\ \text{channel } k} w'^2, \qquad w' = \mathrm{metanet}(w)

    as ``tp.importance.GroupMagnitudeImportance(p=2)`` computes and normalises it. Any pruner of Torch-Pruning takes it
    as its ``importance``. The module keeps its own weights. The pass is made when it is first needed, and anew
    whenever the module's weights or their shapes have changed (iterative pruning, fine-tuning between steps).

    Args:
        metanet: of mode "change".
        module: the module that the pruner prunes.
        example_inputs: as for `NetworkGraph.from_module`.
        options: passed on to ``GroupMagnitudeImportance``, such as ``group_reduction`` or ``normalizer``.

    Raises:
        ValueError: the metanetwork is of mode "repair": it needs to know first which channels go; or, in a call, the
            metanetwork does not fit the module.

    Source: "Meta Pruning via Graph Metanetworks", arXiv 2506.12041, section 3.

    Example:
        >>> import torch_pruning as tp
        >>> net, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 4)
        >>> metanet = MetaNetwork.for_graph(NetworkGraph.from_module(net, x), mode="change", hidden=8, layers=1)
        >>> importance = MetaImportance(metanet, net, x)
        >>> tp.pruner.BasePruner(net, x, importance, pruning_ratio=0.5, ignored_layers=[net[2]]).step()
        >>> net[0].weight.shape
        torch.Size([4, 4])
    """

    def __init__(
        self, metanet: MetaNetwork, module: nn.Module, example_inputs: Tensor | tuple[Any, ...], **options: Any
    ) -> None:
        if metanet.mode != "change":
            raise ValueError(
                f"MetaImportance needs a metanetwork of mode 'change', not {metanet.mode!r}, which is told what goes"
            )
        self.metanet, self.module, self.example_inputs = metanet, module, example_inputs
        self.options = {"p": 2, **options}
        self._seen: tuple[Any, ...] = ()
        self._changed: State = {}

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor | None:
        """The importance of each channel of a Torch-Pruning group; None for a group without weights."""
        import torch_pruning as tp  # slow to import, and only pruning needs it

        score = tp.importance.GroupMagnitudeImportance(**self.options)
        with self._lent(self._pass()):
            found: Tensor | None = score(group)
        return found

    def _pass(self) -> State:
        """The changed weights of the module as it is now."""
        seen = tuple((n, tuple(p.shape), p.data_ptr(), p._version) for n, p in self.module.named_parameters())
        if seen != self._seen:
            changed = self.metanet(NetworkGraph.from_module(self.module, self.example_inputs)).to_state_dict()
            self._changed = {name: tensor.detach().clone() for name, tensor in changed.items()}
            self._seen = seen
        return self._changed

    @contextmanager
    def _lent(self, state: State) -> Iterator[None]:
        """Put other weights into the module, the same parameters, and take them out again."""
        own = {name: parameter.data for name, parameter in self.module.named_parameters()}
        parameters = dict(self.module.named_parameters())
        try:
            for name, parameter in parameters.items():
                parameter.data = state[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = own[name]
