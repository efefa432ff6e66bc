"""The kinds of objects in the toybox, by name."""

from rl3d.toybox.kinds import (
    animals,
    belongings,
    buildings,
    craft,
    figures,
    food,
    furniture,
    household,
    landmarks,
    nature,
    solids,
    swimmers,
    tools,
    vehicles,
    vessels,
)
from rl3d.toybox.things import Kind

# In this order the toybox draws: a seed gives other toys if it changes.
_MODULES = (
    *(furniture, vessels, household, tools, belongings, food, vehicles, craft),
    *(buildings, landmarks, nature, animals, swimmers, figures, solids),
)

KINDS: dict[str, Kind] = {kind.name: kind for module in _MODULES for kind in module.KINDS}
