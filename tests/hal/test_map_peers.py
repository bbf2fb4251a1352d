"""Maps held against others' reading of the same documents: cantools for DBC, pysunspec2 for SunSpec models."""

import random

import cantools
import pytest

from tidegate.hal import maps, sunspec
from tidegate.hal.decode import decode_frame

DBC_MAPS = [name for name in maps.map_names() if maps.shipped(name).can.dbc]


def test_a_map_that_reads_a_dbc_is_shipped():
    assert DBC_MAPS


@pytest.mark.parametrize("name", DBC_MAPS)
def test_every_signal_of_a_dbc_map_has_the_value_that_cantools_gives(name):
    found = maps.shipped(name)
    database = cantools.database.load_string(
        maps.map_folder().joinpath(found.can.dbc).read_text(encoding="utf-8"), "dbc"
    )
    seed = 20240509
    chance = random.Random(seed)
    compared = 0
    for frame in found.frame:
        message = database.get_message_by_frame_id(frame.id)
        for _ in range(300):
            data = chance.randbytes(message.length)
            peer = message.decode(data, decode_choices=False, scaling=True)
            ours = decode_frame(frame, data)
            for signal in frame.signal:
                if not signal.dbc or signal.one_of or ours[signal.name] is None:
                    continue
                raw = next(s for s in message.signals if s.name == signal.dbc)
                scale = signal.scale / raw.scale
                expected = peer[signal.dbc] * scale * signal.sign
                assert ours[signal.name] == pytest.approx(expected, rel=1e-12, abs=1e-9), (
                    seed,
                    signal.name,
                    data.hex(),
                )
                compared += 1
    assert compared > 3000


@pytest.mark.parametrize("number", [n for n in sunspec.numbers() if n < 64000])
def test_fields_of_a_model_lie_where_pysunspec2_puts_them(number):
    device = pytest.importorskip("sunspec2.device")
    once = {714: {"NPrt": 1, "Prt": [{}]}, 803: {"NStr": 1, "string": [{}]}}  # groups that the device counts
    peer = device.Model(number, data=once.get(number))
    assert peer.error_info == ""
    model = sunspec.model(number)

    def walk(group, prefix, top):
        for name, point in group.points.items():
            if top or not prefix:
                yield prefix + name, point
        for name, child in group.groups.items():
            if not isinstance(child, list):
                yield from walk(child, f"{prefix}{name}.", True)

    compared = 0
    for name, point in walk(peer, "", True):
        ours = model.points[name]
        assert (ours.offset, ours.size) == (point.offset, point.len), name
        compared += 1
    assert compared >= 7
