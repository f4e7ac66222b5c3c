"""The measurement of growth measures what it says, and odd texts take the linear time they should."""

from __future__ import annotations

import pytest

from bench.growth import TEXTS, audit, invented_rows, seconds_of, template_rows


def test_an_audit_is_measured_in_a_process_of_its_own():
    found = audit(invented_rows(60))
    assert found["rows"] == 60 and found["seconds"] > 0 and 0.01 < found["peak_gb"] < 4


def test_articles_of_one_template_are_linked_and_counted():
    assert audit(template_rows(40))["rows"] == 120


@pytest.mark.parametrize("name", TEXTS)
def test_odd_texts_take_far_from_the_square_of_their_length(name):
    short, long = (min(seconds_of(TEXTS[name], length) for _ in range(3)) for length in (2_000, 16_000))
    # Half a second is no growth to fear, and a busy machine makes it of a hundredth.
    assert long < 24 * max(short, 0.02), "eight times the length: 8 times the time is linear, 64 its square"
