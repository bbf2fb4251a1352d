"""Control of the SunSpec maps, exercised on devices that pysunspec2 makes: every address, type and factor is its own.

pysunspec2 holds the models and turns values into registers and back; here are only the TCP frames around its registers
and what a converter does about a setpoint. Our side is the compiled program of a site, its TCP port and its decoder.
"""

import socket
import struct
import threading
import time
from itertools import pairwise

import pytest

from tests.config.test_compile import compiled, demo_raw
from tidegate.ext.abi import program
from tidegate.ext.bus import registers
from tidegate.ext.bus.tcp import TcpPorts

peer = pytest.importorskip("sunspec2.device")
BASE = 40000
GROUPS = {714: {"NPrt": 1, "Prt": [{}]}, 160: {"N": 1, "module": [{}]}}


class Converter:
    """Models of pysunspec2 behind a listening socket; `follow` is called with them after each write."""

    def __init__(self, numbers, follow):
        self.models = {number: peer.Model(number, data=GROUPS.get(number)) for number in numbers}
        self.follow = follow
        self.starts, at = {}, BASE + 2
        for number, model in self.models.items():
            self.starts[number] = at
            at += len(model.get_mb()) // 2
        self.lock = threading.Lock()
        self.refused = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def value(self, number, name):
        with self.lock:
            return getattr(self.models[number], name).cvalue

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while len(head := stream.read(6)) == 6:
                body = stream.read(struct.unpack(">H", head[4:])[0])
                reply = body[:1] + self._answer(body[1:])
                connection.sendall(head[:4] + struct.pack(">H", len(reply)) + reply)

    def _answer(self, pdu):
        function, address, count = pdu[0], *struct.unpack(">HH", pdu[1:5])
        with self.lock:
            if function == 3:
                image = b"SunS" + b"".join(model.get_mb() for model in self.models.values()) + b"\xff\xff\0\0"
                data = image[2 * (address - BASE) : 2 * (address - BASE + count)]
                if len(data) == 2 * count:
                    return bytes([3, len(data)]) + data
            if function == 16 and self._write(address, pdu[6:]):
                return pdu[:5]
            self.refused.append(pdu.hex())
            return bytes([function | 0x80, 2])

    def _write(self, address, data):
        for number, start in self.starts.items():
            held = bytearray(self.models[number].get_mb())
            at = 2 * (address - start)
            if at >= 0 and at + len(data) <= len(held):
                held[at : at + len(data)] = data
                self.models[number].set_mb(bytes(held))
                self.follow(self.models)
                return True
        return False


def grown_up(models):
    """IEEE 1547: W follows WSet while it is enabled."""
    ready = models[715].OpCtl.cvalue == 1
    models[701].InvSt.cvalue = 3 if ready else 7
    on = ready and models[704].WSetEna.cvalue == 1 and models[704].WSetMod.cvalue == 1
    models[701].W.cvalue = models[704].WSet.cvalue if on else 0


def modern(factor):
    """(converter, what a site needs to know of it) of the models 701 to 715; factor: of W and WSet."""
    one = Converter((1, 701, 702, 704, 713, 714, 715), grown_up)
    m701, m704, m715 = (one.models[number] for number in (701, 704, 715))
    m701.W_SF.value = m704.WSet_SF.value = factor
    m701.InvSt.value, m701.St.value, m701.ConnSt.value, m701.Alrm.value, m701.W.value = 7, 1, 1, 0, 0
    m715.LocRemCtl.value = m715.DERHb.value = m715.ControllerHb.value = 0
    return one


def old_fashioned(models):
    """Model 124: the discharge and charge rates are per cent of WChaMax; a negative one means the other direction."""
    bits = models[124].StorCtl_Mod.cvalue or 0
    out_w = (models[124].OutWRte.cvalue or 0) / 100 * models[124].WChaMax.cvalue if bits & 2 else 0
    in_w = (models[124].InWRte.cvalue or 0) / 100 * models[124].WChaMax.cvalue if bits & 1 else 0
    models[103].W.cvalue = round(out_w if out_w > 0 else -in_w)


def started(one, name, options=None):
    """(ports, blob, index of the port, name of a command -> slot and row) of a site whose converter is `one`."""
    raw = demo_raw()
    raw["tcp"] = [{"name": "lan", "host": "127.0.0.1", "port": one.port}]
    at = next(i for i, row in enumerate(raw["device"]) if row["role"] == "pcs")
    chain = {str(number): start for number, start in one.starts.items() if number != 1}
    kept = {key: value for key, value in raw["device"][at].items() if key in ("name", "role")}
    raw["device"][at] = {**kept, "map": name, "bus": "lan", "unit_id": 1, "sunspec_models": chain,
                         "options": options or {}}  # fmt: skip
    raw["serial"] = [row for row in raw["serial"] if any(row["name"] == device["bus"] for device in raw["device"])]
    blob = compiled(raw)
    rows, described = program.rows(blob), program.describe(blob)
    index = next(i for i, row in enumerate(rows["ports"]) if row["transport"] != program.TRANSPORTS["serial"])
    own = [i for i, row in enumerate(rows["slaves"]) if row["port"] == index]
    first = min(rows["slaves"][i]["command_first"] for i in own)
    names = [row["name"] for row in described["commands"] if row["device"] == kept["name"]]
    return TcpPorts(blob), blob, index, {word: (slot, first + slot) for slot, word in enumerate(names)}


class Master:
    """What the loop does with a port: its readings into points, values into commands by those points."""

    def __init__(self, one, name, options=None):
        self.ports, self.blob, self.index, self.commands = started(one, name, options)
        self.points, self.readings, self.rows = {}, 0, program.rows(self.blob)
        self.numbers = {row["name"]: i for i, row in enumerate(self.rows["points"])}
        self.pcs = next(row["name"] for row in program.describe(self.blob)["devices"] if row["role"] == "pcs")
        self.ports.start()

    def read(self):
        for done in self.ports.take(self.index):
            if done["status"] == "ok":
                self.readings += 1
                self.points |= registers.decode(self.blob, done["block"], done["regs"], self.points, self.readings)

    def write(self, name, value):
        slot, row = self.commands[name]
        regs = registers.encode(self.blob, row, value, self.points)
        if regs:
            self.ports.put(self.index, slot, regs)
        return bool(regs)

    def value(self, signal):
        self.read()
        return self.points.get(self.numbers[f"{self.pcs}.{signal}"], (None, 0, 0, 0))[0]

    def until(self, what, seconds=60.0):
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, (self.points, self.ports.stats(self.index))
            self.read()
            time.sleep(0.01)


@pytest.mark.parametrize("factor", [-1, 0, 1, 2])
def test_a_converter_of_pysunspec2_is_enabled_and_follows_in_its_own_numbers(factor):
    one = modern(factor)
    master = Master(one, "sunspec-701")
    try:
        # Words without a factor the port writes by itself; the others need the loop to say them.
        rows = {name: master.rows["commands"][row] for name, (_, row) in master.commands.items()}
        scaled = [name for name, row in rows.items() if row["sf_point"] >= 0 and row["kind"] == 0]
        master.until(lambda: all(master.write(name, rows[name]["value"]) for name in scaled))
        told = {"OpCtl": 715, "WSetMod": 704, "WSetEna": 704, "WSetEnaRvrt": 704}
        master.until(lambda: all(one.value(number, name) == 1 for name, number in told.items()))
        assert (
            one.value(704, "WSetRvrtTms") == 2
            and one.value(704, "WSet") == 0
            and one.value(704, "WSetRvrt") in (0, None)
        )
        for setpoint_w in (-3000.0, 2500.0, 0.0):
            master.until(lambda w=setpoint_w: master.write("setpoint", w), 8)
            master.until(lambda w=setpoint_w: one.value(704, "WSet") == pytest.approx(w))
            master.until(lambda w=setpoint_w: master.value("power_w") == pytest.approx(w))
        assert master.value("ready") == 1.0 and master.value("watchdog_s") == 2.0
        slot, _ = master.commands["controller_heartbeat"]
        for beat in (1, 2):
            master.ports.put(master.index, slot, [0, beat])
            master.until(lambda b=beat: one.value(715, "ControllerHb") == b)
        assert one.refused == []
    finally:
        master.ports.stop()
        one.listener.close()


@pytest.mark.parametrize("factor", [-2, -1, 0])
@pytest.mark.parametrize(
    ("map_name", "commands", "chain", "revert_s"),
    [
        ("sunspec-103", ("setpoint_out", "setpoint_in"), (1, 103, 120, 121, 122, 123, 124), 2),
        ("fronius-gen24", ("setpoint",), (1, 103, 120, 121, 122, 123, 160, 124), 10),  # 160 before 124, as it has them
    ],
)
def test_storage_control_of_model_124_is_what_pysunspec2_reads(map_name, commands, chain, revert_s, factor):
    one = Converter(chain, old_fashioned)
    m103, m124 = one.models[103], one.models[124]
    m103.W_SF.value, m103.W.value, m103.St.value, m103.Evt1.value = 1, 0, 4, 0
    m124.InOutWRte_SF.value, m124.WChaMax_SF.value, m124.WChaMax.value = factor, 2, 100
    m124.StorCtl_Mod.value = m124.OutWRte.value = m124.InWRte.value = 0
    m124.ChaState_SF.value, m124.ChaState.value = -1, 605
    master = Master(one, map_name, {"rated_w": "10000"})
    try:
        master.until(lambda: one.value(124, "StorCtl_Mod") == 3 and one.value(124, "InOutWRte_RvrtTms") == revert_s)
        for setpoint_w in (-3000.0, 2500.0, 0.0):
            for name in commands:
                master.until(lambda name=name, w=setpoint_w: master.write(name, w))
            master.until(lambda w=setpoint_w: one.value(124, "OutWRte") == pytest.approx(w / 100))
            master.until(lambda w=setpoint_w: one.value(124, "InWRte") == pytest.approx(-w / 100))
            master.until(lambda w=setpoint_w: master.value("power_w") == pytest.approx(w))
        assert master.value("ready") == 1.0 and master.value("watchdog_s") == revert_s
        assert one.refused == []
    finally:
        master.ports.stop()
        one.listener.close()


def test_the_models_lie_where_the_peer_puts_them():
    one = modern(0)
    one.listener.close()
    starts = list(one.starts.values())
    assert starts[0] == BASE + 2 and all(a < b for a, b in pairwise(starts))
