"""The type checker of the test suite: beartype, taking an int where a float is asked for, as people do (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
