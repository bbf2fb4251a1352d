"""Pylontech over RS-485: recorded questions and answers, a slave on a pty, and what must not be believed."""

import os
import random
import select
import struct
import threading
import time
import tty

import pytest

from tidegate.ext.abi import program
from tidegate.ext.bus import pylon
from tidegate.ext.bus.port import Port

MS = 1_000_000
# Recorded on two packs of 50 Ah: Tomcat42/pylontech-python, examples/1st_justSendAndReceive/output.txt.
ANALOG = (
    b"~20024600C06E00020F0D1F0D200D200D200D200D200D210D200D200D210D220D200D220D220D21050BCD0BAF0BAF0BAF0BAF"
    b"0015C4E88AAC02C350004FE594\r"
)
ALARMS = b"~20024600C04000020F000000000000000000000000000000050000000000000000000E800000F161\r"
LIMITS = b"~20024600B01402D002B79800FAFF06C0F92D\r"
VERSION = b"~200246000000FDB2\r"


def request(command, count, unit=2, first=0):
    return bytes([unit, 3, command, first, 0, count])


def frame(body):
    return b"~" + body + b"%04X\r" % (-sum(body) % 65536)


def content(unit, info, result=0, version=0x20):
    """An answer as a program of the tests' own makes it."""
    text = info.hex().upper().encode()
    check = -sum(int(c, 16) for c in f"{len(text):03X}") % 16
    return frame(b"%02X%02X46%02X%X%03X" % (version, unit, result, check, len(text)) + text)


def analog(unit=2, cells=15, sensors=5, items=2, pack=None, left=35_500, whole=50_000, tail=b""):
    info = bytes([0x11, unit if pack is None else pack, cells]) + b"\x0d\x20" * cells
    info += bytes([sensors]) + b"\x0b\xaf" * sensors + struct.pack(">hH", -21, 50_408)
    large = struct.pack(">I", left)[1:] + struct.pack(">I", whole)[1:] if items > 2 else b""
    return info + struct.pack(">HBHH", left & 0xFFFF, items, whole & 0xFFFF, 79) + large + tail


def words(reply):
    return list(struct.unpack(f">{reply[2] // 2}H", reply[3:]))


def only(answer, asked):
    [(status, reply)] = pylon.answers(asked, answer)
    assert status == "frame"
    return reply


def believed(answer, asked):
    """Whether an engine would take the answer: registers of the unit and the number asked for."""
    found = pylon.answers(asked, answer)
    return any(
        status == "frame" and reply[:3] == bytes([asked[0], 3, 2 * asked[5]]) and len(reply) == 3 + 2 * asked[5]
        for status, reply in found
    )


def test_questions_are_those_that_packs_are_known_to_answer():
    # As published of several programs for these packs.
    assert pylon.ask(request(0x42, 14)) == b"~20024642E00202FD33\r"
    assert pylon.ask(request(0x4F, 4)) == b"~2002464F0000FD98\r"
    assert len(pylon.ask(request(0x92, 5))) == pylon.QUESTION_CHARS


def test_recorded_answers_become_the_registers_of_the_map():
    assert words(only(ANALOG, request(0x42, 14))) == [
        15, 3362, 3359, 5, 3021, 2991, 21, 50408, 0, 35500, 0, 50000, 7100, 79
    ]  # fmt: skip
    assert words(only(LIMITS, request(0x92, 5))) == [0xD002, 0xB798, 250, 0xFF06, 0xC0]
    assert words(only(ALARMS, request(0x44, 6))) == [15, 0, 0, 0x0E, 0x80, 0]
    assert words(only(VERSION, request(0x4F, 17))) == [0] * 17


def test_a_part_of_an_answer_is_its_registers():
    assert words(only(ANALOG, request(0x42, 3, first=6))) == [21, 50408, 0]
    assert not believed(ANALOG, request(0x42, 9, first=6))


def test_a_pack_beyond_65_ah_says_its_charge_in_three_bytes():
    reply = words(only(content(2, analog(items=4, left=88_000, whole=100_000)), request(0x42, 14)))
    assert reply[8:13] == [1, 88_000 - 65536, 1, 100_000 - 65536, 8800]


def test_a_pack_without_capacity_has_no_state_of_charge():
    assert words(only(content(2, analog(whole=0)), request(0x42, 14)))[12] == 0xFFFF


@pytest.mark.parametrize("cells", [1, 8, 15, 16, 32])
@pytest.mark.parametrize("sensors", [1, 5, 6, 12])
def test_any_number_of_cells_and_sensors_is_laid_out(cells, sensors):
    reply = words(only(content(2, analog(cells=cells, sensors=sensors)), request(0x42, 14)))
    assert (reply[0], reply[3], reply[6], reply[7], reply[13]) == (cells, sensors, 65536 - 21, 50_408, 79)


def test_every_alarm_has_its_bit():
    info = bytearray([0, 2, 15]) + bytes(15) + bytes([5]) + bytes(5) + bytes(3) + bytes(5)
    seen = {}
    for place in range(3, len(info)):
        if place == 18:  # the number of sensors
            continue
        for state in (1, 2, 0xF0) if place < 27 else (0x10,):
            changed = bytearray(info)
            changed[place] = state
            found = words(only(content(2, bytes(changed)), request(0x44, 6)))
            seen[place, state] = tuple(found[1:])
    assert {seen[3, 1][0], seen[3, 2][0], seen[3, 0xF0][0]} == {1, 2, 4}  # a cell below, above, else
    assert seen[19, 1][0] == 8  # a sensor below
    assert [seen[place, 1][0] for place in (24, 25, 26)] == [0x40, 0x200, 0x1000]
    assert seen[27, 0x10] == (0, 0x10, 0, 0, 0)  # a protection
    assert seen[30, 0x10] == (0, 0x100, 0, 0, 0x10)  # a cell that has failed is an alarm too
    assert seen[31, 0x10] == (0, 0x100, 0, 0, 0x1000)
    assert all(any(found) for found in seen.values())


def test_an_answer_is_never_taken_for_that_of_another_command():
    """An answer does not say which command it is for: its length has to."""
    answers = {0x92: [LIMITS], 0x4F: [VERSION], 0x42: [], 0x44: []}
    for cells in range(1, 33):
        for sensors in range(1, 13):
            for items in (2, 4):
                answers[0x42].append(content(2, analog(cells=cells, sensors=sensors, items=items)))
            quiet = bytes([0, 2, cells]) + bytes(cells) + bytes([sensors]) + bytes(sensors + 8)
            answers[0x44].append(content(2, quiet))
    for command, count in ((0x42, 14), (0x44, 6), (0x92, 5), (0x4F, 4)):
        for other, made in answers.items():
            for answer in made:
                assert believed(answer, request(command, count)) == (other == command), (command, answer)


def test_random_cells_do_not_make_one_command_of_another():
    chance = random.Random(7)
    for _ in range(4000):
        cells, sensors = chance.randrange(1, 33), chance.randrange(1, 13)
        info = bytes([0, 2, cells]) + b"".join(struct.pack(">H", chance.randrange(2000, 4000)) for _ in range(cells))
        info += bytes([sensors]) + b"".join(struct.pack(">H", chance.randrange(2500, 3400)) for _ in range(sensors))
        info += struct.pack(">hHHBHH", chance.randrange(-500, 500), 50_000, 20_000, 2, 50_000, 80)
        answer = content(2, info)
        assert believed(answer, request(0x42, 14))
        assert not believed(answer, request(0x44, 6))


def test_any_wrong_character_is_refused():
    for answer, asked in ((ANALOG, request(0x42, 14)), (LIMITS, request(0x92, 5)), (ALARMS, request(0x44, 6))):
        for place in range(len(answer)):
            for bit in range(8):
                changed = bytearray(answer)
                changed[place] ^= 1 << bit
                assert not believed(bytes(changed), asked), (place, bit)
            assert not believed(answer[:place], asked)
            assert not believed(answer[:place] + answer[place + 1 :], asked)


@pytest.mark.parametrize(
    "answer",
    [
        content(3, analog(3)),  # another pack, late
        content(2, analog(pack=3)),  # of a pack behind it
        content(2, analog(tail=b"\0")),
        content(2, analog()[:-1]),
        content(2, analog(items=3)[:-6]),  # says that more follows
        content(2, b""),
        content(2, analog(cells=0)),
        content(2, analog(sensors=0)),
        content(2, analog(sensors=13)),
        frame(b"20024600" + b"406E" + ANALOG[13:-5]),  # the length's own checksum
        frame(b"20024700" + ANALOG[9:-5]),  # not a lithium battery's
        ANALOG[:-1] + b"\n",
    ],
)
def test_what_is_no_answer_to_the_question_is_not_believed(answer):
    assert not believed(answer, request(0x42, 14))


def test_a_result_is_an_exception():
    codes = {result: only(content(2, b"", result), request(0x42, 14))[1:3] for result in (1, 2, 3, 4, 5, 6, 0x90, 0x91)}
    assert all(reply[0] == 0x83 for reply in codes.values())
    assert [codes[result][1] for result in (4, 2, 3, 0x90, 0x91)] == [1, 6, 6, 11, 11]


def test_frames_are_found_among_other_characters():
    asked = request(0x92, 5)
    assert [status for status, _ in pylon.answers(asked, b"\0\xff" + LIMITS + b"~2002" + LIMITS + b"\r\n")] == [
        "frame"
    ] * 2
    assert [status for status, _ in pylon.answers(asked, pylon.ask(asked) + LIMITS)] == ["echo", "frame"]
    assert pylon.answers(asked, b"~" + b"0" * 2000 + b"\r") == []
    assert pylon.answers(asked, b"~" * 1000) == []
    assert [status for status, _ in pylon.answers(asked, b"~\r")] == ["damaged"]


def test_random_bytes_are_never_believed():
    chance = random.Random(11)
    alphabet = b"0123456789ABCDEF~\r"
    for _ in range(3000):
        mixed = bytes(chance.choice(alphabet) for _ in range(chance.randrange(1, 400)))
        for command, count in ((0x42, 14), (0x44, 6), (0x92, 5)):
            assert not believed(mixed, request(command, count))
        pylon.answers(request(0x42, 14), chance.randbytes(300))


# ---------------------------------------------------------------- on a line


class Packs(threading.Thread):
    """A stack of packs on one end of a pty."""

    def __init__(self, fd, units):
        super().__init__(daemon=True)
        self.fd, self.units, self.asked, self.ended = fd, units, [], False
        self.before = b""  # characters in front of each answer
        self.spoil = lambda answer: answer

    def run(self):
        held = b""
        while not self.ended:
            if not select.select([self.fd], [], [], 0.02)[0]:
                continue
            held += os.read(self.fd, 512)
            *whole, held = held.split(b"\r")
            for text in whole:
                unit, command = int(text[3:5], 16), int(text[7:9], 16)
                self.asked.append((unit, command))
                answer = self.answer(unit, command)
                if answer:
                    for piece in (self.before + self.spoil(answer))[:30], (self.before + self.spoil(answer))[30:]:
                        os.write(self.fd, piece)

    def answer(self, unit, command):
        if unit not in self.units:
            return b""
        if command == 0x42:
            return content(unit, analog(unit, left=1000 * unit))
        if command == 0x92:
            return content(unit, bytes([unit]) + struct.pack(">HHhhB", 53_250, 47_000, 10 * unit, -250, 0xC0))
        if command == 0x4F:
            return content(unit, b"")
        return content(unit, b"", 4)


@pytest.fixture
def stack():
    ours, theirs = os.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    packs = Packs(ours, {2, 3})
    packs.start()
    yield theirs, packs
    packs.ended = True
    packs.join()
    os.close(theirs)
    os.close(ours)


def site(units=(2, 3), **port):
    blocks = [
        {"function": 3, "address": 0x4200, "count": 14, "fields": [], "period_ns": 20 * MS},
        {"function": 3, "address": 0x9200, "count": 5, "fields": [], "period_ns": 20 * MS},
    ]
    slaves = [{"unit_id": unit, "timeout_ns": 300 * MS, "blocks": blocks} for unit in units]
    row = {"baud": 115200, "transport": program.TRANSPORTS["pylontech"], **port, "slaves": slaves}
    points = [{"name": "d.p0", "unit": "W"}]
    return program.pack({"points": points, "units": [{"energy_wh": 1.0}], "ports": [row]})


def run(fd, blob, until, within_s=60.0):
    """(blocks that were read, statistics) once `until` says so of the statistics."""
    port = Port(blob, 0, fd)
    found = []
    port.start()
    over = time.monotonic() + within_s
    while time.monotonic() < over and not until(port.stats):
        found += port.take()
        time.sleep(0.02)
    port.stop()
    return found + port.take(), port.stats


def test_packs_on_a_line_are_read_each_by_its_own_address(stack):
    fd, _ = stack
    found, stats = run(fd, site(), lambda stats: stats["reads"] >= 40)
    good = [row for row in found if row["status"] == "ok"]
    assert len(good) >= 40
    for row in good:
        unit = 2 + row["block"] // 2
        if row["block"] % 2:
            assert row["regs"] == [53_250, 47_000, 10 * unit, 65536 - 250, 0xC0]
        else:
            assert row["regs"][9] == 1000 * unit
    assert stats["mismatches"] == stats["crc_errors"] == stats["timeouts"] == 0
    assert stats["wire_busy_ns"] > 40 * 80 * 86_000  # characters that really went


def test_a_silent_pack_leaves_the_others_their_turns_and_comes_back(stack):
    fd, packs = stack
    packs.units = {2}
    _, stats = run(fd, site(), lambda stats: stats["reads"] >= 40 and stats["timeouts"] >= 3)
    assert stats["slaves"][0]["ok"] >= 40
    assert not stats["slaves"][1]["alive"]
    packs.units = {2, 3}
    _, stats = run(fd, site(), lambda stats: stats["slaves"][1]["ok"] >= 4)
    assert stats["slaves"][1]["alive"]


def test_damaged_answers_are_counted_and_give_no_registers(stack):
    fd, packs = stack
    packs.spoil = lambda answer: answer[:40].replace(b"D", b"E") + answer[40:]
    found, stats = run(fd, site(units=(2,)), lambda stats: stats["crc_errors"] >= 5)
    assert stats["crc_errors"] >= 5
    assert all(row["status"] == "ok" or not row["regs"] for row in found)


def test_an_answer_of_another_pack_is_a_mismatch_and_separators_end_it(stack):
    fd, packs = stack
    honest = packs.answer
    packs.answer = lambda unit, command: honest(3, command)
    _, stats = run(fd, site(units=(2,)), lambda stats: stats["mismatches"] >= 3)
    assert stats["mismatches"] >= 3
    assert stats["reads"] == 0
    packs.answer = honest
    _, stats = run(fd, site(units=(2,)), lambda stats: stats["reads"] >= 20)
    assert stats["reads"] >= 20


def test_a_command_that_a_pack_does_not_have_is_an_exception(stack):
    fd, packs = stack
    packs.answer = lambda unit, command: content(unit, b"", 4)
    _, stats = run(fd, site(units=(2,)), lambda stats: stats["exceptions"] >= 2)
    assert stats["slaves"][0]["exception_codes"][1] >= 2
    assert stats["reads"] == 0


def test_a_line_that_echoes_is_named_or_stripped(stack):
    fd, packs = stack
    honest = packs.answer
    packs.answer = lambda unit, command: pylon.ask(request(command, 1, unit)) + honest(unit, command)
    _, stats = run(fd, site(units=(2,)), lambda stats: stats["echoes"] >= 3)
    assert stats["echoes"] >= 3
    assert stats["reads"] == 0
    _, stats = run(fd, site(units=(2,), flags=1), lambda stats: stats["reads"] >= 20)
    assert stats["reads"] >= 20
    assert stats["echoes"] == 0


def test_stray_bytes_before_an_answer_are_counted_and_cost_nothing(stack):
    fd, packs = stack
    packs.before = b"\x00"
    _, stats = run(fd, site(units=(2,)), lambda stats: stats["reads"] >= 20)
    assert stats["reads"] >= 20
    assert stats["slaves"][0]["foreign_bytes"] >= 20


def test_late_answers_are_not_taken_for_the_next_ones(stack):
    """Each tenth answer comes after its time is over, with the values of then."""
    fd, packs = stack
    honest, count, late = packs.answer, [0], []

    def answer(unit, command):
        count[0] += 1
        made = honest(unit, command)
        if count[0] % 10:
            return made
        late.append(unit)
        time.sleep(0.35)
        return made

    packs.answer = answer
    found, stats = run(fd, site(), lambda stats: stats["reads"] >= 60 and stats["timeouts"] >= 3)
    good = [row for row in found if row["status"] == "ok"]
    assert stats["timeouts"] >= 3
    for row in good:
        unit = 2 + row["block"] // 2
        assert (row["regs"][2] == 10 * unit) if row["block"] % 2 else (row["regs"][9] == 1000 * unit)


def test_nothing_can_be_written_on_such_a_line():
    command = {"kind": 1, "function": 16, "address": 900, "unit": 0, "type": 1}
    slave = {"unit_id": 2, "timeout_ns": 300 * MS, "blocks": [], "commands": [command]}
    row = {"baud": 115200, "transport": program.TRANSPORTS["pylontech"], "slaves": [slave]}
    with pytest.raises(ValueError, match="slave"):
        program.pack({"points": [{"name": "d.p0", "unit": "W"}], "units": [{"energy_wh": 1.0}], "ports": [row]})
