"""`tidegate init` against the simulated cabinet, and everything that it has to refuse."""

import os
import stat
import tomllib
from pathlib import Path

import can
import pytest
from click.testing import CliRunner

from tests.runtime.cabinet import NAMEPLATE, Cabinet, tidegate
from tidegate.config.site import load_site
from tidegate.hal.sim.slcan import frame_of, line_of
from tidegate.runtime.cli.init_command import init, make_site, verify
from tidegate.runtime.commissioning import new_file, prompts
from tidegate.runtime.commissioning.draft import Unit, site_text
from tidegate.runtime.commissioning.prompts import Answers, SetupError, can_buses, read_answers, serial_ports
from tidegate.runtime.commissioning.survey import Bus, Part, _registers_part, bus_name
from tidegate.runtime.tools.open_bus import claim
from tidegate.runtime.tools.scan import FoundDevice


@pytest.fixture(scope="module")
def cabinet(tmp_path_factory):
    made = Cabinet(tmp_path_factory.mktemp("cabinet") / "buses")
    yield made
    assert made.close() == 0
    assert not list(made.folder.iterdir())  # the links go with the plant


@pytest.fixture
def refused(cabinet, tmp_path):
    """Runs init with other words, expects a refusal that leaves nothing; gives what it said."""

    def run(*words: str, code: int, site: Path | None = None) -> str:
        before = sorted(tmp_path.iterdir())
        done = CliRunner().invoke(init, [str(site or tmp_path / "site.toml"), "--yes", *words])
        assert done.exit_code == code and isinstance(done.exception, SystemExit), (done.output, done.exception)
        assert "no site file was written" in done.stderr
        assert sorted(tmp_path.iterdir()) == before
        return done.stderr

    return run


# ------------------------------------------------------------------------------------------------- what it writes


def test_init_finds_the_cabinet_and_check_accepts_its_file(cabinet, tmp_path):
    site = tmp_path / "hall.toml"
    done = tidegate("init", str(site), "--yes", *cabinet.words, *NAMEPLATE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert tidegate("check", str(site), folder=tmp_path).returncode == 0
    made = load_site(site)
    assert {(d.name, d.map, d.role) for d in made.device} == {
        ("grid", "eastron-sdm630", "grid-meter"), ("pcs1", "sunspec-701", "pcs"), ("bms1", "bms-35x-hv", "bms"),
    }  # fmt: skip
    assert made.device[1].sunspec_models["704"] == 40277 and made.device[2].options == {"voltage_v": "0.1"}
    assert made.site.name == "hall" and made.control.peak_w_max == 50000
    text = site.read_text()
    assert "# Doubt: " in text and "Tidegate simulated PCS" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hall.toml"]


def test_answers_come_from_a_file_and_options_go_before_them(cabinet, tmp_path):
    answers = tmp_path / "answers.toml"
    meters = f"{cabinet.folder}/meters"
    answers.write_text(
        f'name = "plant-9"\ntimezone = "Europe/Berlin"\ncountry = "DE"\nserial = ["{meters}", "{cabinet.folder}/pcs"]\n'
        f'can = ["{cabinet.words[5]}"]\nids = "1"\nseconds = 1\nbaud = [115200]\nparity = "N"\nenergy_wh = 1\n'
        f"charge_w_max = 30000\ndischarge_w_max = 30000\nconnection_import_w_max = 60000\n"
        f'[roles]\n"{meters}:1" = "grid-meter"\n[maps]\n"{meters}:1" = "eastron-sdm120"\n'
    )
    site = tmp_path / "site.toml"
    done = tidegate("init", str(site), "--answers", str(answers), "--energy-wh", "60000", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    made = load_site(site)
    assert made.site.name == "plant-9" and made.storage[0].energy_wh == 60000
    assert made.device[0].map == "eastron-sdm120"


def test_a_bad_answer_is_asked_again_and_the_ports_of_the_machine_are_offered(cabinet, tmp_path, monkeypatch):
    site = tmp_path / "hall.toml"
    ports = f"{cabinet.folder}/meters {cabinet.folder}/pcs"
    can_bus = cabinet.words[5]
    answers = (
        "/dev/no-such-port", ports, "can77", can_bus,  # a port and a bus that are not there
        "", "role?", "grid-meter",  # an answer that is none of the choices
        "a name!", "hall", "Mars/Base", "UTC", "many", "-5", "60000", "30000", "30000", "60000", "x", "-1", "", "90000",
        "y", "hall", "UTC", "60000", "30000", "30000", "60000", "", "50000",  # a peak above the fuse: asked anew
    )  # fmt: skip
    asked = []
    left = iter(answers)

    def answer(text, default=None, type=None, **more):
        said = next(left)
        asked.append((text, said))
        if said == "" and default is not None:
            return default
        return said

    def prompt(text, default=None, type=None, **more):
        while True:
            said = answer(text, default, type)
            if type is None or isinstance(said, float):
                return said
            try:
                return type(said) if not hasattr(type, "choices") else type.convert(said, None, None)
            except (ValueError, prompts.click.exceptions.UsageError):
                continue

    monkeypatch.setattr(prompts.click, "prompt", prompt)
    monkeypatch.setattr(prompts.click, "confirm", lambda *words, **more: answer(*words) == "y")
    monkeypatch.setattr(prompts, "serial_ports", lambda: ["/dev/ttyUSB0"])
    monkeypatch.setattr("tidegate.runtime.cli.init_command.serial_ports", lambda: ["/dev/ttyUSB0"])
    said = []
    monkeypatch.setattr(prompts.click, "echo", lambda text="", **more: said.append(str(text)))
    make_site(site, Answers(ids="1", baud=[115200], parity="N", seconds=1), prompts.Asker(interactive=True))
    text = "\n".join(said)
    for words in ("this machine has /dev/ttyUSB0", "/dev/no-such-port: no such port", "can77: no such CAN interface",
                  "'a name!': expected", "'Mars/Base': expected an IANA name", "-5: expected more than 0",
                  "'x': expected a number", "peak_w_max"):  # fmt: skip
        assert words in text, words
    assert load_site(site).control.peak_w_max == 50_000 and not list(left)


@pytest.mark.parametrize(("kind", "seen"), [("1", False), ("280", True), ("772", False)])
def test_can_buses_are_told_from_other_interfaces(tmp_path, kind, seen):
    (tmp_path / "sys/class/net/x0").mkdir(parents=True)
    (tmp_path / "sys/class/net/x0/type").write_text(f"{kind}\n")
    assert can_buses(tmp_path) == (["x0"] if seen else [])


def test_serial_ports_are_named_by_what_lasts_and_those_without_a_uart_are_left_out(tmp_path):
    for name in ("dev/ttyUSB0", "dev/ttyUSB1", "dev/ttyS0", "dev/ttyS1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "dev/serial/by-id").mkdir(parents=True)
    (tmp_path / "dev/serial/by-id/usb-FTDI").symlink_to(tmp_path / "dev/ttyUSB0")
    for name, kind in (("ttyS0", "4"), ("ttyS1", "0")):
        (tmp_path / "sys/class/tty" / name).mkdir(parents=True)
        (tmp_path / "sys/class/tty" / name / "type").write_text(f"{kind}\n")
    assert serial_ports(tmp_path) == ["/dev/serial/by-id/usb-FTDI", "/dev/ttyUSB1", "/dev/ttyS0"]


@pytest.mark.parametrize(("realtime", "period_us"), [(True, None), (False, 10_000)])
def test_an_ordinary_kernel_gets_a_longer_cycle_and_the_file_has_the_reason(realtime, period_us):
    text = site_text(Answers(name="x"), [], [], "head", realtime)
    assert tomllib.loads(text)["site"].get("period_us") == period_us
    assert ("PREEMPT_RT" in text) is not realtime


def test_words_of_a_device_cannot_leave_their_comment():
    bus = Bus("pcs", "/dev/x", 9600)
    found = FoundDevice(1, 40000, [(1, 40002, 68), (701, 40070, 155)], {"maker": 'evil"\n[gateway]\nautostart = true'})
    part = _registers_part("/dev/x", bus, found, {})
    part.name, part.role = "pcs1", "pcs"
    text = site_text(Answers(name="x"), [part], [Unit("u", "b", "pcs1")], "head")
    assert "gateway" not in tomllib.loads(text)


@pytest.mark.parametrize(("told", "options"), [(5000.0, {"rated_w": "5000"}), (None, {})])
def test_the_rating_that_a_converter_says_itself_is_taken(told, options):
    chain = [(1, 40002, 68), (103, 40070, 52), (124, 40122, 26)]
    part = _registers_part("tty", Bus("a", "tty"), FoundDevice(1, 40000, chain, charge_w_max=told), {})
    assert part.map == "sunspec-103" and part.options == options


def test_bus_names_are_short_and_differ():
    taken: set[str] = set()
    names = [bus_name(w, taken, "serial") for w in ("/dev/ttyUSB0", "/dev/serial/by-id/usb-FTDI_AB-if00-port0",
             "/dev/serial/by-id/usb-FTDI_CD-if00-port0", "slcan:/dev/ttyACM0")]  # fmt: skip
    assert names == ["ttyusb0", "serial", "serial2", "ttyacm0"]


# ------------------------------------------------------------------------------------------------- what it refuses


def test_an_existing_file_is_never_touched(refused, cabinet, tmp_path):
    site = tmp_path / "site.toml"
    site.write_text("mine")
    assert "exists; choose another name" in refused(*cabinet.words, *NAMEPLATE, code=73)
    assert site.read_text() == "mine"
    site.unlink()
    site.symlink_to(tmp_path / "nowhere")  # a link that leads nowhere is a name that exists as well
    assert "exists" in refused(*cabinet.words, *NAMEPLATE, code=73)


def test_a_missing_port_is_named(refused, cabinet):
    assert "/dev/ttyNOPE: there is no such device" in refused("--serial", "/dev/ttyNOPE", *NAMEPLATE, code=1)


def test_a_port_in_use_is_named_with_its_holder(refused, cabinet):
    held = claim(f"{cabinet.folder}/meters", 9600, "N", 1)
    try:
        said = refused(*cabinet.words, *NAMEPLATE, code=75)
    finally:
        held.close()
    assert "in use by" in said and "meters" in said


def test_what_is_no_tty_is_refused(refused, tmp_path):
    plain = tmp_path / "file"
    plain.write_text("x")
    assert "is not a serial port" in refused("--serial", str(plain), *NAMEPLATE, code=1)


def test_a_bus_on_which_nobody_answers_says_what_to_check(refused, cabinet):
    said = refused("--serial", f"{cabinet.folder}/meters", "--ids", "9", "--baud", "9600", "--parity", "N", code=69)
    assert "nobody answered ids 9 at 9600 8N1" in said and "A and B swapped" in said


def test_a_silent_can_bus_says_what_to_check(refused, cabinet):
    master, slave = os.openpty()
    try:
        words = [
            "--serial",
            f"{cabinet.folder}/meters",
            "--ids",
            "1",
            "--can",
            f"slcan:{os.ttyname(slave)}?sleep_after_open=0",
        ]
        said = refused(*words, "--seconds", "0.5", *NAMEPLATE, code=69)
    finally:
        os.close(master)
        os.close(slave)
    assert "0 frames in 0.5 s" in said and "termination" in said


def test_a_can_interface_that_does_not_exist_is_named(refused, cabinet):
    said = refused("--serial", f"{cabinet.folder}/meters", "--ids", "1", "--can", "cannone9", *NAMEPLATE, code=1)
    assert "cannone9" in said and "ip link" in said


def test_everything_missing_is_said_at_once(refused, cabinet):
    said = refused(*cabinet.words, code=64)
    for name in ("--energy-wh", "--charge-w-max", "--discharge-w-max", "--connection-import-w-max"):
        assert name in said
    assert "the BMS allows" in said


def test_a_site_without_converter_is_refused(refused, cabinet):
    words = ["--serial", f"{cabinet.folder}/meters", "--ids", "1", "--can", cabinet.words[5], "--seconds", "1"]
    assert "0 converters and 1 BMS found" in refused(*words, *NAMEPLATE, code=65)


def test_a_role_for_what_was_not_found_is_refused(refused, cabinet):
    said = refused(*cabinet.words, *NAMEPLATE, "--role", "/dev/ttyS9:4=grid-meter", code=64)
    assert "/dev/ttyS9:4: nothing was found there" in said


def test_a_draft_that_would_not_run_is_not_written(tmp_path):
    part = Part(Bus("m", "/dev/x", 300, "N"), "/dev/x:1", 1, "eastron-sdm630", "meter", "", role="grid-meter", name="g")
    text = site_text(Answers(name="x", energy_wh=1, connection_import_w_max=1), [part], [Unit("u", "b", "p")], "head")
    with pytest.raises(SetupError, match="would not run"):
        verify(tmp_path / "site.toml", text)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [("nam = 'x'", "unknown answer"), ("energy_wh = -1", "greater than 0"), ("= 3", "is not TOML")],
)
def test_a_wrong_answers_file_is_named_with_its_key(tmp_path, text, said):
    path = tmp_path / "answers.toml"
    path.write_text(text)
    with pytest.raises(SetupError, match=said) as caught:
        read_answers(path, {})
    assert str(path) in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):  # pragma: no cover
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError, match="cannot be written"):
        new_file.write_new(tmp_path / "x", "y")


def test_a_read_only_disk_is_said_in_one_line():
    with pytest.raises(SetupError, match="cannot be written") as caught:
        new_file.write_new(Path("/proc/site.toml"), "x")  # a file system that takes no files
    assert caught.value.exit_code == 73


# ------------------------------------------------------------------------------------------------- losing power


CALLS = ["mkstemp", "fsync", "link", "replace"]


@pytest.mark.parametrize("call", CALLS)
def test_power_cut_while_a_file_is_made_leaves_all_or_nothing(tmp_path, monkeypatch, call):
    """The process ends at each system call in turn, as at a loss of power; the name is there whole or not at all."""
    site = tmp_path / "site.toml"
    cut_at(monkeypatch, call)
    with pytest.raises(PowerCut) if call != "replace" else nothing():
        new_file.write_new(site, "x" * 10_000)
    assert not site.exists() or len(site.read_text()) == 10_000


@pytest.mark.parametrize("call", CALLS)
def test_power_cut_while_a_file_is_replaced_keeps_old_or_new(tmp_path, monkeypatch, call):
    site = tmp_path / "site.toml"
    site.write_text("old" * 5000)
    cut_at(monkeypatch, call)
    with pytest.raises(PowerCut):
        new_file.replace(site, "new" * 5000)
    assert site.read_text() in ("old" * 5000, "new" * 5000)


def test_a_replaced_file_keeps_mode_and_a_copy(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text("old")
    site.chmod(0o640)
    copies = [new_file.replace(site, f"new {i}") for i in range(3)]
    assert site.read_text() == "new 2" and stat.S_IMODE(site.stat().st_mode) == 0o640
    assert [copy.read_text() for copy in copies] == ["old", "new 0", "new 1"] and len(set(copies)) == 3


def test_a_file_of_somebody_else_is_replaced_and_the_copy_kept(tmp_path, monkeypatch):
    """The kernel refuses a second name for what is not ours; on an installed package a test does it in earnest."""
    site = tmp_path / "site.toml"
    site.write_text("old")
    link = new_file.os.link

    def protected(source, target):
        if source == site:
            raise PermissionError(1, "Operation not permitted")
        link(source, target)

    monkeypatch.setattr(new_file.os, "link", protected)
    copy = new_file.replace(site, "new")
    assert (site.read_text(), copy.read_text()) == ("new", "old")


class PowerCut(BaseException):
    pass


class nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


def cut_at(monkeypatch, call):
    def cut(*_args, **_more):
        raise PowerCut

    monkeypatch.setattr(new_file.tempfile if call == "mkstemp" else new_file.os, call, cut)


# ------------------------------------------------------------------------------------------------- the adapter


def test_slcan_lines_are_what_python_can_speaks(cabinet):
    with can.Bus(interface="slcan", channel=f"{cabinet.folder}/bms", sleep_after_open=0.1) as bus:
        heard = [bus.recv(2.0) for _ in range(12)]
        assert {m.arbitration_id for m in heard if m} >= {0x351, 0x355, 0x356}
        bus.send(can.Message(arbitration_id=0x305, data=bytes(8), is_extended_id=False))


@pytest.mark.parametrize("line", [b"t1232ABCD", b"T000001232ABCD", b"t1230", b"r1238"])
def test_slcan_frames_survive_both_ways(line):
    frame = frame_of(line)
    assert frame is not None and line_of(frame) == line + b"\r"


@pytest.mark.parametrize(
    "line", [b"", b"t", b"t12", b"t1239" + b"00" * 9, b"tXYZ1AA", b"t1232AB", b"S6", b"\xff\xff\xff\xff\xff"]
)
def test_slcan_refuses_what_is_no_frame(line):
    assert frame_of(line) is None
