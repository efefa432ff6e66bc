"""The command line as tests of commands type it."""

import pytest

from rl3d.__main__ import main


def fails(capsys, *words: str) -> str:
    """What is said of a user's mistake: in words, and with exit code 2."""
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error
