"""What is cut together: single weights, rows, blocks, modules, coupled channels; one kind a file. What is cut tensor by
tensor is in the table `GRAINS`."""

from graphsparse.params.grains.blocks import Blocks
from graphsparse.params.grains.coupled import Coupled
from graphsparse.params.grains.elements import Elements
from graphsparse.params.grains.grain import GRAINS, Grain
from graphsparse.params.grains.modules import Modules
from graphsparse.params.grains.rows import Rows
from graphsparse.params.grains.spanning import Spanning

__all__ = ["GRAINS", "Blocks", "Coupled", "Elements", "Grain", "Modules", "Rows", "Spanning"]
