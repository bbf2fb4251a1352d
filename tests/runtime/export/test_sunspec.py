"""The SunSpec exporter read by foreign clients: pysunspec2 point by point, pymodbus, mbpoll."""

import asyncio
import contextlib
import shutil
import subprocess
import threading
from importlib.resources import files

import msgspec
import pytest

from tidegate.config.faults import read_table
from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.hal import sunspec
from tidegate.hal.description import Description, Device, Limits, Storage

server = pytest.importorskip("tidegate.runtime.export.sunspec_server")
view = pytest.importorskip("tidegate.runtime.export.sunspec_view")
client_of = pytest.importorskip("sunspec2.modbus.client")

UNIT = Storage(name="cabinet", bms="bms1", pcs="pcs1", energy_wh=60_000, charge_w_max=30_000, discharge_w_max=25_000)
SITE = Description(
    devices=(Device(name="grid", role="grid-meter"), Device(name="bms1", role="bms"), Device(name="pcs1", role="pcs")),
    units=(UNIT,),
    limits=Limits(connection_import_w_max=48_000.0),
)
READINGS = {
    "site.mode": 4.0, "site.grid_w": 41_230.0, "site.ess_w": -2_500.0,
    "grid.frequency_hz": 49.98, "grid.import_wh": 123_456.0, "grid.export_wh": 7.0,
    **{f"grid.voltage_l{at}_v": 229.0 + at for at in (1, 2, 3)},
    **{f"grid.current_l{at}_a": 59.5 + at for at in (1, 2, 3)},
    **{f"grid.power_l{at}_w": 13_700.0 + 10 * at for at in (1, 2, 3)},
    "bms1.soc": 0.625, "bms1.soh": 0.98, "bms1.pack_v": 792.7, "bms1.pack_a": -3.2, "bms1.charge_a_max": 52.1,
    "bms1.discharge_a_max": 53.9, "bms1.cell_v_min": 3.299, "bms1.cell_v_max": 3.307,
    "pcs1.frequency_hz": 49.97, "pcs1.discharged_wh": 1_000_000_000_000.0, "pcs1.charged_wh": 5_500.0,
    "unit0.fault_bits_lo": 2.0, "unit0.fault_bits_hi": 256.0, "unit0.fault_bits_64": 0.0, "unit0.fault_bits_96": 0.0,
}  # fmt: skip
# What pysunspec2 reads, with its own scaling: every point that says something. All others must read as None.
SHOWN = {
    203: {
        "A": 184.5, "AphA": 60.5, "AphB": 61.5, "AphC": 62.5, "PhV": 231.0, "PhVphA": 230.0, "PhVphB": 231.0,
        "PhVphC": 232.0, "Hz": 49.98, "W": 41_230, "WphA": 13_710, "WphB": 13_720, "WphC": 13_730, "TotWhExp": 7,
        "TotWhImp": 123_456, "Evt": 0,
    },
    713: {"WHRtg": 60_000, "WHAvail": 37_500, "SoC": 62.5, "SoH": 98.0, "Sta": 1},
    701: {
        "ACType": 2, "St": 1, "InvSt": 4, "Alrm": 1 << 7 | 1 << 16, "W": -2_500, "Hz": 49.97,
        "TotWhInj": 1_000_000_000_000, "TotWhAbs": 5_500, "MnAlrmInfo": "bms_never, temp_high_warn",
    },
    802: {
        "WHRtg": 60_000, "WChaRteMax": 30_000, "WDisChaRteMax": 25_000, "SoCMin": 10.0, "SoCMax": 95.0, "SoC": 62.5,
        "SoH": 98.0, "ChaSt": 4, "Typ": 0, "State": 3, "Evt1": 1 << 0 | 1 << 2, "Evt2": 0, "EvtVnd1": 2,
        "EvtVnd2": 256, "V": 792.7, "A": -3.2, "AChaMax": 52.1, "ADisChaMax": 53.9, "W": -2_500, "CellVMax": 3.307,
        "CellVMin": 3.299,
    },
}  # fmt: skip


def described():
    faults = [{"id": "bms_never", "row": 1}, {"id": "temp_high_warn", "row": 40}]
    return {**msgspec.to_builtins(SITE), "faults": faults}


class Shown:
    """The exporter without a site behind it, in a thread of its own."""

    def __init__(self, port):
        self.port, self.site, self.loop = port, None, asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.ready.wait(30)

    def _run(self):
        from pymodbus.server import ModbusTcpServer
        from pymodbus.simulator import DataType, SimData, SimDevice

        async def serve():
            self.site = server.SunSpecSite(described())
            values = list(self.site.registers.words)
            data = [SimData(server.BASE, values=values, datatype=DataType.REGISTERS)]
            serving = ModbusTcpServer(SimDevice(0, simdata=data, action=self.site.on_access),
                                      address=("127.0.0.1", self.port))  # fmt: skip
            assert await serving.listen()
            self.end = asyncio.Event()
            self.ready.set()
            await self.end.wait()
            await serving.shutdown()

        self.loop.run_until_complete(serve())

    def do(self, job, *words):
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (job(*words), done.set()))
        assert done.wait(30)

    def close(self):
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(30)
        self.loop.close()


@pytest.fixture
def shown(free_port):
    one = Shown(free_port())
    yield one
    one.close()


@contextlib.contextmanager
def kept_fresh(shown):
    """The site's newest snapshot is of now, for however long the reading takes."""
    end = threading.Event()

    def speak():
        while not end.is_set():
            shown.do(shown.site.take, {name: (value, 1) for name, value in READINGS.items()})
            end.wait(0.1)

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def scanned(port):
    device = client_of.SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=10)
    device.scan(delay=0)
    return device


def test_pysunspec_reads_every_point_as_it_is_and_none_that_is_not_known(shown):
    shown.do(shown.site.take, {name: (value, 1) for name, value in READINGS.items()})
    with kept_fresh(shown):
        device = scanned(shown.port)
        device.close()
    assert set(device.models) >= {1, 203, 713, 704, 701, 802}
    wrong = []
    for number, said in SHOWN.items():
        for name, point in device.models[number][0].points.items():
            if name in ("ID", "L") or name.endswith("_SF"):
                continue
            found, wanted = point.cvalue, said.get(name)
            if isinstance(wanted, float):
                good = found is not None and abs(found - wanted) < 1e-9 * max(1.0, abs(wanted))
            else:
                good = found in (wanted, "") if wanted is None else found == wanted
            if not good:
                wrong.append((number, name, found, wanted))
        assert not set(said) - set(device.models[number][0].points)
    assert not wrong


@pytest.mark.parametrize("gone", ["pcs1.discharged_wh", "grid.import_wh", "bms1.soc", "site.grid_w", "site.mode"])
def test_a_point_that_is_lost_becomes_not_implemented_and_not_zero_or_the_last_value(gone):
    one = view.SunSpecView(SITE)
    one.take({name: (value, 1) for name, value in READINGS.items()})
    before = list(one.registers.words)
    one.take({name: (None if name == gone else value, 3) for name, value in READINGS.items()})
    places = {
        "pcs1.discharged_wh": [(701, "TotWhInj")], "grid.import_wh": [(203, "TotWhImp")],
        "bms1.soc": [(713, "SoC"), (713, "WHAvail"), (802, "SoC")], "site.grid_w": [(203, "W")],
        "site.mode": [(701, "InvSt"), (701, "St"), (802, "State")],
    }[gone]  # fmt: skip
    for number, name in places:
        at, size = one.registers.place(number, name)
        sentinel = sunspec.model(number).points[name].sentinel or 0
        assert before[at : at + size] != one.registers.words[at : at + size]
        assert one.registers.get(number, name) & (1 << 16 * size) - 1 == sentinel


def test_what_does_not_fit_its_register_is_not_clamped():
    one = view.SunSpecView(SITE)
    limit = 32_767 * 10.0 ** one.registers.get(203, "W_SF")
    for grid_w, raw in ((limit, 32_767), (limit * 1.01, -0x8000), (-limit * 1.01, -0x8000), (float("inf"), -0x8000)):
        one.take({"site.grid_w": (grid_w, 1)})
        assert one.registers.get(203, "W") == raw
    assert limit >= 2 * 48_000


@pytest.mark.parametrize(("import_w", "exponent"), [(48_000.0, 1), (400_000.0, 2), (5_000_000.0, 3), (None, 3)])
def test_the_scale_of_powers_leaves_room_for_twice_the_connection(import_w, exponent):
    one = view.SunSpecView(msgspec.structs.replace(SITE, limits=Limits(connection_import_w_max=import_w)))
    assert one.registers.get(203, "W_SF") == one.registers.get(701, "W_SF") == exponent


def test_reads_of_a_silent_site_are_exceptions_and_it_can_still_be_recognised(shown, eventually):
    from pymodbus.client import ModbusTcpClient

    with kept_fresh(shown), ModbusTcpClient("127.0.0.1", port=shown.port, timeout=10) as client:
        watts = server.BASE + shown.site.registers.place(203, "W")[0]
        assert client.read_holding_registers(watts, count=1).registers == [4123]
    with ModbusTcpClient("127.0.0.1", port=shown.port, timeout=10) as client:
        refused = eventually(lambda: client.read_holding_registers(watts, count=1), lambda got: got.isError())
        assert refused.exception_code == server.ExcCodes.GATEWAY_NO_RESPONSE
        head = client.read_holding_registers(server.BASE, count=4)
        assert not head.isError() and head.registers[:3] == [*sunspec.SUNS, 1]
        scale = server.BASE + shown.site.registers.place(203, "W_SF")[0]
        assert client.read_holding_registers(scale, count=1).registers == [1]
        order = server.BASE + shown.site.registers.place(704, "WSetEna")[0]
        assert client.write_register(order, 1).exception_code == server.ExcCodes.GATEWAY_NO_RESPONSE
    with kept_fresh(shown), ModbusTcpClient("127.0.0.1", port=shown.port, timeout=10) as client:
        again = eventually(lambda: client.read_holding_registers(watts, count=1), lambda got: not got.isError())
        assert again.registers == [4123]


def test_mbpoll_reads_the_same_registers(shown):
    mbpoll = shutil.which("mbpoll")
    if mbpoll is None:
        pytest.skip("mbpoll is not installed")
    with kept_fresh(shown):
        at = server.BASE + shown.site.registers.place(203, "W")[0]
        done = subprocess.run(
            [mbpoll, "-m", "tcp", "-p", str(shown.port), "-0", "-r", str(at), "-c", "1", "-t", "4:hex", "-1", "-o",
             "10", "127.0.0.1"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    assert f"[{at}]: \t0x{4123:04X}" in done.stdout, done.stdout + done.stderr


def test_addresses_that_a_scada_knows_have_not_moved():
    starts = view.SunSpecView(SITE).registers.starts
    assert [starts[number] for number in (1, 203, 713, 704)] == [2, 70, 177, 186]


def test_every_word_for_modes_and_faults_is_one_of_the_models():
    for table, number, point in (
        (view.INVERTER_STATES, 701, "InvSt"), (view.BATTERY_STATES, 802, "State"),
        (view.BATTERY_EVENTS, 802, "Evt1"), (view.CONVERTER_ALARMS, 701, "Alrm"),
    ):  # fmt: skip
        assert set(table.values()) <= set(sunspec.symbols(number, point))
    assert set(view.INVERTER_STATES) == set(view.BATTERY_STATES) == set(MODES_BY_NUMBER)
    faults = [row.id for row in read_table(files("tidegate.config").joinpath("faults.toml").read_text(), [])]
    for table in (view.BATTERY_EVENTS, view.CONVERTER_ALARMS):
        idle = [start for start in table if not any(fault.startswith(start) for fault in faults)]
        assert len(faults) > 50 and not idle
    # A start that stands behind a shorter one of itself would never be asked.
    starts = list(view.BATTERY_EVENTS)
    assert not [b for at, a in enumerate(starts) for b in starts[at + 1 :] if b.startswith(a)]
