"""What becomes of the weights outside the mask; one rule a file, each in the table `RULES`."""

from graphsparse.params.rules.bypass import Bypass
from graphsparse.params.rules.drop_grow import DropGrow
from graphsparse.params.rules.gates import Gates
from graphsparse.params.rules.hold import Hold
from graphsparse.params.rules.late import Late
from graphsparse.params.rules.project import Project
from graphsparse.params.rules.proximal import Proximal
from graphsparse.params.rules.rule import RULES, Rule
from graphsparse.params.rules.shrink import Shrink
from graphsparse.params.rules.straight_through import StraightThrough

__all__ = [
    "RULES",
    "Bypass",
    "DropGrow",
    "Gates",
    "Hold",
    "Late",
    "Project",
    "Proximal",
    "Rule",
    "Shrink",
    "StraightThrough",
]
