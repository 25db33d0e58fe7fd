"""The product team's own option: pytest docs/examples --quark-station sim:s1 --image build/s1-virtual"""

import pytest


def pytest_addoption(parser):
    parser.addoption("--image", required=True, help="what to flash")


@pytest.fixture
def image(request):
    return request.config.getoption("--image")
