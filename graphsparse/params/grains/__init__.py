"""What is cut together: single weights, rows, blocks; one kind a file, each in the table `GRAINS`."""

from graphsparse.params.grains.blocks import Blocks
from graphsparse.params.grains.elements import Elements
from graphsparse.params.grains.grain import GRAINS, Grain
from graphsparse.params.grains.rows import Rows

__all__ = ["GRAINS", "Blocks", "Elements", "Grain", "Rows"]
