"""Adapters: what is asked of the driver, what it kept, what the measured turnaround gives away."""

import os

import pytest

from tidegate.ext.bus.rtu_view import histogram_edges
from tidegate.hal.serial_line import lead_in_words, quantile_ns, tune, turnaround_words


@pytest.fixture
def pty():
    ours, theirs = os.openpty()
    yield theirs, os.ttyname(theirs)
    os.close(ours)
    os.close(theirs)


def test_a_tty_without_knobs_is_tuned_without_a_word(pty):
    tuned = tune(*pty)
    assert (tuned.low_latency, tuned.latency_timer_ms, tuned.rs485, tuned.words) == (None, None, None, [])


def test_rs485_that_the_driver_does_not_have_is_refused_with_the_remedy(pty):
    with pytest.raises(OSError, match="leave rs485 out of the site file"):
        tune(*pty, rs485=True)


def ftdi(root, device, value="16"):
    knob = root / "bus/usb-serial/devices" / os.path.basename(device) / "latency_timer"
    knob.parent.mkdir(parents=True)
    knob.write_text(value)
    return knob


def test_the_latency_timer_of_an_ftdi_adapter_is_set_and_read_back(pty, tmp_path):
    knob = ftdi(tmp_path, pty[1])
    assert tune(*pty, sys_root=str(tmp_path)).latency_timer_ms == 1
    assert knob.read_text() == "1"


def test_a_latency_timer_that_cannot_be_set_is_said(pty, tmp_path, monkeypatch):
    knob = ftdi(tmp_path, pty[1])

    def refuse(self, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(knob), "write_text", refuse)
    tuned = tune(*pty, sys_root=str(tmp_path))
    assert tuned.latency_timer_ms == 16
    assert "udev" in tuned.words[0]


def slave(**at_ms):
    """A slave's statistics with so many answers at each turnaround."""
    edges, buckets = histogram_edges(), [0] * len(histogram_edges())
    for name, count in at_ms.items():
        ns = int(name.removeprefix("ms")) * 1_000_000
        buckets[next(i for i, edge in enumerate(edges) if ns < edge)] += count
    return {"turnaround": buckets}


def test_an_adapter_that_holds_bytes_back_shows_on_every_slave():
    edges = histogram_edges()
    assert turnaround_words("rs485a", {"slaves": [slave(ms15=90, ms16=10), slave(ms31=50)]}, edges)
    assert not turnaround_words("rs485a", {"slaves": [slave(ms15=90), slave(ms2=50)]}, edges)
    assert not turnaround_words("rs485a", {"slaves": [slave(ms15=5)]}, edges)


def test_the_quantile_of_nothing_is_nothing():
    edges = histogram_edges()
    assert quantile_ns([0] * len(edges), edges, 0.5) is None
    assert quantile_ns(slave(ms4=1)["turnaround"], edges, 0.5) >= 4_000_000


def test_histogram_edges_rise_and_reach_a_minute():
    edges = histogram_edges()
    assert edges == sorted(set(edges))
    assert edges[-1] > 10_000_000_000


def test_a_stray_byte_before_replies_is_said_of_the_device_that_has_it():
    said = lead_in_words("rs485a", ["grid", "pv"], {"slaves": [{"lead_ins": 0}, {"lead_ins": 7}]})
    assert len(said) == 1 and "7 replies of pv" in said[0] and "lead_in_bytes of [[serial]] rs485a" in said[0]
    assert not lead_in_words("rs485a", ["grid"], {"slaves": [{"lead_ins": 0}]})
