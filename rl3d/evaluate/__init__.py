"""Measures of assets, and the benchmark that applies them to held-out prompts."""
