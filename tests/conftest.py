"""Fixtures and markers for all tests."""

import os
import uuid

import pytest

import fastrelu

MARKERS = (
    "slow: takes seconds or starts many processes; run by CI, and with -m slow",
    "cuda: runs on a CUDA GPU, real or emulated",
    "exclusive: fills a GPU's memory, so that nothing else may run there",
)


@pytest.hookimpl(tryfirst=True)  # before the report is opened
def pytest_configure(config):
    """Register the markers, leave out what is slow, and leave a report in the folder ``FASTRELU_REPORTS`` if set."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.option.markexpr = config.option.markexpr or "not slow"
    folder = os.environ.get("FASTRELU_REPORTS")
    if folder and not config.option.xmlpath:
        config.option.xmlpath = os.path.join(folder, f"{uuid.uuid4().hex}.xml")


@pytest.fixture(params=["plain", "streaming"])
def stores(request):
    """Run with plain stores everywhere, then with streaming stores everywhere."""
    with fastrelu.configure(streaming_min_bytes=0 if request.param == "streaming" else 1 << 62):
        yield request.param
