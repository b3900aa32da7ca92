"""`braze doctor`: it reports what is well, what is not, and keeps going."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from braze import config
from braze.cli import doctor as module
from braze.cli.doctor import CHECKS, Finding, doctor


@pytest.mark.parametrize(("subject", "check"), CHECKS, ids=[subject for subject, _ in CHECKS])
def test_this_machine_is_well(subject: str, check: object) -> None:
    assert callable(check)
    finding = check()
    assert finding.subject == subject
    assert finding.good is not False, finding.text


def test_a_broken_check_is_reported_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise OSError("libLLVM is [not] there")

    after = Finding("after", True, "still examined")
    monkeypatch.setattr(module, "CHECKS", (("broken", broken), ("after", lambda: after)))
    result = CliRunner().invoke(doctor)
    assert result.exit_code == 1
    assert "✗  broken" in result.output and "OSError: libLLVM is [not] there" in result.output
    assert "✓  after   still examined" in result.output


def test_all_well_is_exit_status_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", (("known", lambda: Finding("known", None, "a fact")),))
    assert CliRunner().invoke(doctor).exit_code == 0


def test_options_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(doctor, ["--options"])
    assert result.exit_code == 0
    for option in config.options():
        assert option.name in result.output and option.env in result.output
