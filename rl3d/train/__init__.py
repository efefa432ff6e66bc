"""Scripts that train the embedded models."""
