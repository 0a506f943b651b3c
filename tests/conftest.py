"""Fixtures for all tests."""

import pytest

import fastrelu


@pytest.fixture(params=["plain", "streaming"])
def stores(request):
    """Run with plain stores everywhere, then with streaming stores everywhere."""
    with fastrelu.configure(streaming_min_bytes=0 if request.param == "streaming" else 1 << 62):
        yield request.param
