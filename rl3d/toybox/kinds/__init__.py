"""The kinds of objects in the toybox, by name."""

from rl3d.toybox.kinds import animals, buildings, figures, food, furniture, household, nature, solids, swimmers, tools, vehicles
from rl3d.toybox.things import Kind

_MODULES = (furniture, household, tools, food, vehicles, buildings, nature, animals, swimmers, figures, solids)

KINDS: dict[str, Kind] = {kind.name: kind for module in _MODULES for kind in module.KINDS}
