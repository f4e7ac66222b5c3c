"""The check of the GPU requirements, without the internet: indexes that are empty or cannot be reached."""

import pytest

from tools.check_requirements import check, describe

pytest.importorskip("uv", reason="uv is not installed: requirements-test.txt")


@pytest.mark.slow
def test_a_pin_that_the_index_lacks_fails_and_is_named(tmp_path, capsys):
    (tmp_path / "index").mkdir()
    (tmp_path / "pins.txt").write_text("no-such-package==1.0\n")
    assert check((tmp_path / "index").as_uri(), [str(tmp_path / "pins.txt")], ["3.12"]) == 1
    out = capsys.readouterr().out
    assert "pins.txt, Python 3.12: CANNOT BE INSTALLED" in out and "no-such-package" in out


@pytest.mark.slow
def test_an_index_that_cannot_be_reached_is_told_from_pins_that_are_wrong(monkeypatch, capsys):
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    assert check("http://127.0.0.1:9/simple", pythons=["3.12"]) == 2
    assert "the package index cannot be reached" in capsys.readouterr().err


def test_what_is_shown_is_what_must_fit_together():
    assert describe("numpy==2.4.6\ntorch==2.10.0\nxformers==0.0.35") == "torch 2.10.0, xformers 0.0.35"
