"""The sidecar against a journal that answers like the gateway: crashes, absences, a journal that forgot."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tidegate.runtime.carbon.factors.series import Factors
from tidegate.runtime.carbon.ledger.ledger import Ledger
from tidegate.runtime.carbon.sidecar.service import Sidecar, catch_up, software_build

ROOT = Path(__file__).parents[4]
HOUR = 1_717_200_000 // 3600 * 3600
DESCRIBE = {
    "site": {"name": "s"},
    "points": [{"name": n} for n in ("grid.import_wh", "grid.export_wh", "site.grid_in_ws", "site.grid_out_ws",
                                     "site.grid_covered_s", "site.ess_discharged_ws", "site.ess_charged_ws",
                                     "site.ess_covered_s", "bms1.soc")],
    "nodes": [{"role": "grid", "device": "grid", "positive_wh": "grid.import_wh", "negative_wh": "grid.export_wh"},
              {"role": "ess", "device": "pcs1", "positive_wh": None, "negative_wh": None}],
    "units": [{"name": "cabinet", "pcs": "pcs1", "energy_wh": 60_000.0}],
}  # fmt: skip


def journal(seconds, seed=1, boots=1, step_s=1):
    """Meter records of a site, in the order of the journal."""
    rng = random.Random(seed)
    records, wh = [], 1000.0
    for boot in range(boots):
        grid = out = into = covered = 0.0
        for seq in range(seconds // boots // step_s):
            watts, ess = rng.uniform(10_000, 50_000), rng.uniform(-20_000, 20_000)
            wh += watts * step_s / 3600
            grid, covered = grid + watts * step_s, covered + step_s
            into, out = into + max(0.0, -ess) * step_s, out + max(0.0, ess) * step_s
            t_ns = (seq + 1) * step_s * 10**9
            points = {"grid.import_wh": wh, "grid.export_wh": 0.0, "site.grid_in_ws": grid, "site.grid_out_ws": 0.0,
                      "site.grid_covered_s": covered, "site.ess_discharged_ws": out, "site.ess_charged_ws": into,
                      "site.ess_covered_s": covered, "bms1.soc": 0.5}  # fmt: skip
            records.append({
                "v": 1, "kind": "meter", "site": "s", "boot": f"{boot:032x}", "seq": seq, "cycle": seq, "t_ns": t_ns,
                "utc_ns": (HOUR + boot * seconds // boots) * 10**9 + t_ns, "utc_sync": "S", "program": "0" * 64,
                "points": {name: [value, 1] for name, value in points.items()},
            })  # fmt: skip
    return records


class Journal:
    """Answers replay like the gateway's client."""

    def __init__(self, records):
        self.records = records

    def replay(self, stream, boot=None, seq=-1, count=256):
        assert stream == "meter"
        start = 0
        if boot is not None:
            mine = [i for i, r in enumerate(self.records) if r["boot"] == boot]
            if not mine:
                error = RuntimeError("gone")
                error.code = "gone"
                raise error
            start = next((i for i in mine if self.records[i]["seq"] > seq), mine[-1] + 1)
        found = self.records[start : start + count]
        return found, start + count >= len(self.records)


def sidecar(path):
    return Sidecar(DESCRIBE, Ledger(path), Factors(None, 200_000_000, "test"))


def bodies(path):
    return [(e.seq, e.hash) for e in Ledger(path, read_only=True).entries("period")]


def test_every_record_is_booked_once_and_the_ledger_verifies(tmp_path):
    one = sidecar(tmp_path / "l.db")
    assert catch_up(one, Journal(journal(4000))) == 4000
    one.commit()
    periods = list(one.ledger.entries("period"))
    assert [p.start_utc_s for p in periods] == [HOUR + 900 * i for i in range(4)]
    assert sum(p.body["records"] for p in periods) == 3600
    assert one.ledger.verify() == []
    assert [e.body["policy"] for e in one.ledger.entries("method")] == ["average"]


def test_a_sidecar_stopped_anywhere_ends_with_the_same_ledger(tmp_path):
    records = journal(6000, boots=2)
    whole = sidecar(tmp_path / "whole.db")
    catch_up(whole, Journal(records))
    rng = random.Random(9)
    seen = 0
    while seen < len(records):
        seen = min(len(records), seen + rng.randint(1, 1500))
        one = sidecar(tmp_path / "cut.db")
        catch_up(one, Journal(records[:seen]))
        if rng.random() < 0.5:
            one.commit()  # else: as if killed before the commit
        one.ledger.close()
    one = sidecar(tmp_path / "cut.db")
    catch_up(one, Journal(records))
    assert bodies(tmp_path / "whole.db") == bodies(tmp_path / "cut.db")


def test_a_journal_that_forgot_costs_shape_and_no_energy(tmp_path):
    records = journal(8000)
    one = sidecar(tmp_path / "l.db")
    catch_up(one, Journal(records[:1500]))
    for record in records[3000:]:
        record["boot"] = "f" * 32
        record["seq"] -= 3000
        record["t_ns"] -= 3000 * 10**9
    catch_up(one, Journal(records[3000:]))
    one.commit()
    booked = [p.body for p in one.ledger.entries("period")]
    first, last = booked[0]["flows"]["grid.import"], booked[-1]["flows"]["grid.import"]
    assert (
        sum(b["flows"]["grid.import"]["energy_milliwh"] for b in booked)
        == last["close_milliwh"] - first["open_milliwh"]
        or abs(
            sum(b["flows"]["grid.import"]["energy_milliwh"] for b in booked)
            - (last["close_milliwh"] - first["open_milliwh"])
        )
        < 15_000
    )  # the closing reading is that of the second behind the boundary
    assert [b["flows"]["grid.import"]["quality"] for b in booked][1:3] == ["estimated", "estimated"]


KILLED = """
    import json, sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from tests.runtime.carbon.sidecar.test_service import Journal, journal, sidecar, catch_up
    one = sidecar(sys.argv[2])
    one.ledger.begin("s")
    print("ready", flush=True)
    catch_up(one, Journal(journal(20_000, boots=3)))
    one.commit()
    print("done", flush=True)
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_while_booking_loses_and_doubles_nothing(tmp_path, seed):
    times = int(os.environ.get("CARBON_KILLS", "6"))
    rng = random.Random(seed)
    whole = sidecar(tmp_path / "whole.db")
    catch_up(whole, Journal(journal(20_000, boots=3)))
    whole.commit()
    words = [sys.executable, "-c", textwrap.dedent(KILLED), str(ROOT), str(tmp_path / "cut.db")]
    done = False
    for _ in range(times):
        process = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(rng.uniform(0.01, 0.5))
            done = True
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.stdout.close()
        assert Ledger(tmp_path / "cut.db", read_only=True).verify() == []
    if not done:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    assert bodies(tmp_path / "whole.db") == bodies(tmp_path / "cut.db")
    assert json.loads(whole.ledger.state("booking"))["booker"]["_seq"] == 20_000 // 3 - 1


def test_the_build_of_the_accounting_code_covers_every_room_of_it(monkeypatch):
    whole = software_build()
    read = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or path.open("rb").read())
    assert software_build() == whole
    rooms = {path.relative_to(ROOT / "runtime" / "carbon").parts[0] for path in read}
    assert {"engine", "factors", "ledger", "sidecar", "report", "integers.py"} <= rooms
