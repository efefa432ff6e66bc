"""Where a page puts a browser's camera, and when it leaves it alone."""

from unittest.mock import Mock

import numpy as np
import viser
from rl3d.viewer.cameras import Framing, first_position


def framed(aspect):
    """A camera at viser's usual place, a framing of it, and that placed."""
    camera = Mock(spec=viser.CameraHandle, aspect=aspect, position=np.array([3.0, 3.0, 3.0]))
    framing = Framing(lambda: camera)
    framing.place()
    return camera, framing


def test_a_camera_follows_the_shape_of_its_canvas():
    camera, framing = framed(0.2)
    assert np.linalg.norm(camera.position) > 14
    camera.aspect = 1.5
    framing.keep()
    for _ in range(9):
        framing.keep()
    assert np.allclose(camera.position, first_position(1.5))


def test_a_late_message_from_where_it_stood_is_no_move_of_the_client():
    camera, framing = framed(0.2)
    camera.position = np.array([3.0, 3.0, 3.0])  # was under way when it was placed
    framing.keep()
    camera.position, camera.aspect = np.array(first_position(0.2)), 1.5
    framing.keep()
    assert np.allclose(camera.position, first_position(1.5))


def test_a_camera_that_the_client_moved_is_left_alone():
    camera, framing = framed(0.2)
    camera.position = np.array([0.0, 2.0, 1.0])
    framing.keep()
    camera.aspect = 1.5
    framing.keep()
    assert np.allclose(camera.position, [0.0, 2.0, 1.0])
