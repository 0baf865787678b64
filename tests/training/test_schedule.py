"""The learning rate is a pure function of the step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protein_model.training.schedule import Schedule, extended, restarted


@given(warmup=st.integers(0, 50), rest=st.integers(1, 200), peak=st.floats(1e-6, 1.0))
def test_rises_to_the_peak_then_falls_to_the_end(warmup, rest, peak):
    schedule = Schedule(peak, warmup, warmup + rest)
    rates = [schedule.rate(step) for step in range(warmup + rest)]
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[warmup] == pytest.approx(peak)
    assert min(rates) > 0 and max(rates) <= peak * (1 + 1e-12)


def test_known_values():
    schedule = Schedule(peak=1e-3, warmup_steps=10, total_steps=110)
    assert schedule.rate(0) == pytest.approx(1e-3 / 11)
    assert schedule.rate(60) == pytest.approx(5e-4)
    assert schedule.rate(110) == 0.0
    assert Schedule(1e-3, 0, 100, final_fraction=0.1).rate(100) == pytest.approx(1e-4)


def test_more_epochs_are_the_curve_as_if_they_had_been_planned():
    longer = Schedule(1e-3, 10, 410)
    assert longer.rate(300) > Schedule(1e-3, 10, 310).rate(300)


@given(done=st.integers(1, 110), more=st.integers(1, 300), warmup=st.integers(0, 20))
def test_extensions_of_a_run(done, more, warmup):
    schedule = Schedule(1e-3, 10, 110)
    present, total = schedule.rate(done - 1), 110 + more
    stretched = extended(schedule, "stretch", done, total, warmup)
    assert stretched == Schedule(1e-3, 10, total)
    held = extended(schedule, "hold", done, total, warmup)
    assert {held.rate(step) for step in range(done, total + 5)} == {present}
    rewarmed = extended(schedule, "rewarm", done, total, warmup)
    rates = [rewarmed.rate(step) for step in range(done, total)]
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert min(rates) >= min(present, rates[-1]) and max(rates) <= 1e-3 * (1 + 1e-12)
    again = restarted(schedule, done)
    assert again.rate(done) == pytest.approx(1e-3 / 11)
    for changed in (stretched, held, rewarmed, again):
        assert Schedule.from_dict(changed.to_dict()) == changed
