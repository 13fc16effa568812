"""Data of the report tests, made once."""

from __future__ import annotations

import pytest

from lingualign.report.data import ReportData

from .make_sample import sample_data


@pytest.fixture(scope="session")
def data() -> ReportData:
    """14 languages before and after an edit, with controls."""
    return sample_data()


@pytest.fixture(scope="session")
def audit_only() -> ReportData:
    """The same without an edit."""
    return sample_data(audit_only=True)


@pytest.fixture(scope="session")
def small_data() -> ReportData:
    """Two languages, for tests that render many pages."""
    return sample_data(languages=("en", "ar"), n=4)
