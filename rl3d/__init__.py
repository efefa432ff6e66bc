"""Text to 3D, taught with rewards."""
