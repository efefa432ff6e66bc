"""How a reward teaches the prior: one algorithm a module, each a value with a pure ``collect`` and ``loss``."""
