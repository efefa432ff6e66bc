"""The world of real objects: named meshes made by artists, cleaned, captioned and rendered like toys.

:mod:`rl3d.world.sources` and :mod:`rl3d.world.debian` fetch and prepare Debian's, :mod:`rl3d.world.folder` anyone's own. A
:class:`~rl3d.world.surface.Surface` is one mesh with its pictures, a :class:`~rl3d.world.things.Thing` what is known of it;
:mod:`rl3d.world.language` words what they are, and :mod:`rl3d.world.dataset` renders them in varied light, with their albedo.
No mesh belongs to this repository: ``catalogue.csv`` lists all with their authors and licences.
"""
