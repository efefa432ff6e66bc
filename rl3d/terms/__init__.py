"""How a signal reaches the scene."""
