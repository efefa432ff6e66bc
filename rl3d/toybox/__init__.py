"""The toybox: a small world of everyday objects, each with its exact attributes, parts and captions.

A :class:`Spec` says what a toy is ("a house with a red roof", "a duck on a wooden table"). ``sample`` draws one, ``caption``
words it, ``build`` makes one of the many toys of which it is true: painted, labelled meshes inside the unit sphere, the front
towards +x. Combinations of attributes are held out for validation and testing (``split_of``).

The kinds of objects are in :mod:`rl3d.toybox.kinds`, renderers in :mod:`rl3d.toybox.render`, what is false of a toy, for
evaluation, in :mod:`rl3d.toybox.pools`.
"""

from rl3d.toybox.assemble import Part as Part
from rl3d.toybox.assemble import Toy as Toy
from rl3d.toybox.assemble import build as build
from rl3d.toybox.grammar import canonical as canonical
from rl3d.toybox.grammar import caption as caption
from rl3d.toybox.grammar import sample as sample
from rl3d.toybox.grammar import split_of as split_of
from rl3d.toybox.grammar import unknown as unknown
from rl3d.toybox.grammar import vocabulary as vocabulary
from rl3d.toybox.grammar import words as words
from rl3d.toybox.things import Item as Item
from rl3d.toybox.things import Spec as Spec
