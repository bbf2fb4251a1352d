"""When samples must go, the energy of each quarter hour stays."""

import msgpack

from tidegate.runtime.gateway.retention import QUARTER_S, Retention
from tidegate.runtime.state.journal import Journal, Record

BOOT = b"b" * 16
START_S = 1_700_000_000 // QUARTER_S * QUARTER_S


def sample(seq):
    utc_ns = (START_S + seq * 60) * 10**9
    body = {
        "v": 1, "kind": "meter", "site": "s", "boot": BOOT.hex(), "seq": seq, "utc_ns": utc_ns,
        "points": {"grid.import_wh": [1e3 + 10 * seq, 1], "site.grid_w": [float(100 - seq % 7), 1], "x_w": [None, 3]},
    }  # fmt: skip
    return Record(BOOT, seq, utc_ns, seq, msgpack.packb(body))


def journals(folder, **more):
    meter = Journal(folder, "meter", segment_bytes=2000)
    return meter, Retention(meter, Journal(folder, "event"), Journal(folder, "totals"), **more)


def fill(meter, count):
    for seq in range(count):
        meter.append(sample(seq))
        meter.sync()


def totals(retention):
    return [msgpack.unpackb(record.payload) for record in retention.totals.after(None, -1, 1000)[0]]


def test_samples_go_when_they_are_too_many_and_their_quarter_hours_stay(tmp_path):
    meter, retention = journals(tmp_path, samples_bytes=6000, samples_age_ns=10**30)
    fill(meter, 200)
    for _ in range(200):
        retention.step()
    assert meter.bytes_total <= 6000 and retention.folded > 5
    oldest = meter.oldest()[1]
    kept = totals(retention)
    assert sum(one["count"] for one in kept) == oldest, "every sample that went is in a total"
    for one in kept:
        assert one["first"]["utc_ns"] // 10**9 // QUARTER_S * QUARTER_S == one["quarter_utc_s"]
        energy = one["last"]["points"]["grid.import_wh"][0] - one["first"]["points"]["grid.import_wh"][0]
        assert energy == 10 * (one["count"] - 1)
        assert one["min"]["site.grid_w"] <= one["max"]["site.grid_w"] and "x_w" not in one["min"]
    # From the first total to the first sample that is left, no energy is missing.
    first = kept[0]["first"]["points"]["grid.import_wh"][0]
    left = msgpack.unpackb(meter.after(None, -1, 1)[0][0].payload)["points"]["grid.import_wh"][0]
    assert left - first == 10 * oldest


def test_samples_go_when_they_are_too_old(tmp_path):
    meter, retention = journals(tmp_path, samples_age_ns=1)
    fill(meter, 100)
    for _ in range(100):
        retention.step()
    assert len(meter.segments) == 1


def test_a_segment_is_folded_once_even_if_the_power_goes_before_it_is_dropped(tmp_path):
    meter, retention = journals(tmp_path, samples_bytes=1, samples_age_ns=10**30)
    fill(meter, 60)
    retention._fold()
    before = totals(retention)
    retention.totals.close()
    meter.close()
    again = Retention(
        Journal(tmp_path, "meter"), Journal(tmp_path, "event"), Journal(tmp_path, "totals"), samples_bytes=1
    )
    again.step()
    assert totals(again) == before
    again.step()
    counted = sum(one["count"] for one in totals(again))
    assert counted == again.meter.oldest()[1]


def test_nothing_goes_while_there_is_room(tmp_path):
    meter, retention = journals(tmp_path, samples_age_ns=10**30)
    fill(meter, 50)
    retention.step()
    assert retention.folded == 0 and meter.oldest()[1] == 0
