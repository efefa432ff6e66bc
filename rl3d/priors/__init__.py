"""Diffusion priors."""
