import pytest
from family_checks import make


def pytest_generate_tests(metafunc):
    if "made" in metafunc.fixturenames:
        writers = metafunc.cls.writers
        metafunc.parametrize("made", writers, ids=[name for name, _ in writers], indirect=True, scope="module")


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """Each model of a class's ``writers``."""
    return make(*request.param, tmp_path_factory.mktemp(request.param[0]))
