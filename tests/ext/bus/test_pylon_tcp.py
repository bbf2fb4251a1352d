"""Pylontech packs behind a serial gateway: whole, cut, late, doubled and damaged answers, and a gateway that closes."""

import socket
import threading
import time

import pytest

from tests.ext.bus.test_pylon import ALARMS, ANALOG, LIMITS, VERSION
from tests.ext.bus.test_tcp import block, good, site, slave, started, until

ANSWERS = {b"42": ANALOG, b"44": ALARMS, b"92": LIMITS, b"4F": VERSION}
BLOCKS = [block(0x4200, 14), block(0x4400, 6), block(0x9200, 5)]
SOC_WORDS = [15, 3362, 3359, 5, 3021, 2991, 21, 50408, 0, 35500, 0, 50000, 7100, 79]


class Gateway(threading.Thread):
    """A pack, 2, at a TCP port. spoil: (number of the question, answer) -> pieces (pause_s, bytes; None: closes)."""

    def __init__(self, spoil=None):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.spoil = spoil or (lambda number, answer: [(0, answer)])
        self.questions, self.connections = [], 0
        self.start()

    def run(self):
        while True:
            try:
                master, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=(master,), daemon=True).start()

    def serve(self, master):
        held = b""
        with master:
            while True:
                try:
                    came = master.recv(512)
                except OSError:
                    return
                if not came:
                    return
                held += came
                while b"\r" in held:
                    question, _, held = held.partition(b"\r")
                    self.questions.append(question)
                    if question[3:5] != b"02":
                        continue
                    for pause_s, piece in self.spoil(len(self.questions), ANSWERS[question[7:9]]):
                        time.sleep(pause_s)
                        if piece is None:
                            return
                        try:
                            master.sendall(piece)
                        except OSError:
                            return

    def close(self):
        self.listener.close()


@pytest.fixture
def run():
    kept = []

    def begin(spoil=None, blocks=BLOCKS, unit_id=2):
        gateway = Gateway(spoil)
        ports = started(site(gateway.port, [slave(*blocks, unit_id=unit_id)], transport="pylontech-tcp", baud=115200))
        kept.append((gateway, ports))
        return gateway, ports

    yield begin
    for gateway, ports in kept:
        ports.stop(0.0)
        gateway.close()


def believed(ports):
    """The registers of each question that was believed; each must be what the pack said to that one."""
    found = {}
    for row in good(ports):
        found.setdefault(row["block"], set()).add(tuple(row["regs"]))
    return found


EXPECTED = {0: {tuple(SOC_WORDS)}, 1: {(15, 0, 0, 0x0E, 0x80, 0)}, 2: {(0xD002, 0xB798, 250, 0xFF06, 0xC0)}}


def counts(ports, *names):
    found = ports.stats(0)
    return sum(found[name] for name in names)


def test_a_pack_behind_a_gateway_is_read(run):
    gateway, ports = run()
    until(lambda: counts(ports, "reads") >= 30)
    assert believed(ports) == EXPECTED
    assert counts(ports, "mismatches", "crc_errors", "timeouts", "foreign_bytes") == 0 and gateway.connections == 1
    assert counts(ports, "wire_busy_ns") > 0


def test_answers_in_pieces_are_whole(run):
    _, ports = run(lambda _, answer: [(0, answer[:1]), (0.003, answer[1:70]), (0.003, answer[70:])])
    until(lambda: counts(ports, "reads") >= 10)
    assert believed(ports) == EXPECTED and counts(ports, "crc_errors", "mismatches") == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda number, answer: [(0, answer), (0, answer)],
        lambda number, answer: [(0, answer), (0.01, answer)],
        lambda number, answer: [(0.35 if number % 4 == 0 else 0, answer)],
        lambda number, answer: [(0, answer if number % 3 else answer[:-9] + b"0" + answer[-8:])],
        lambda number, answer: [(0, answer if number % 3 else LIMITS)],
        lambda number, answer: [(0, answer if number % 3 else b"\x00garbage\xff" + answer[:40])],
    ],
    ids=["twice", "once more", "late", "damaged", "to another question", "cut"],
)
def test_nothing_is_believed_but_the_answer_to_the_question(run, spoil):
    _, ports = run(spoil)
    until(lambda: counts(ports, "reads") >= 12, 60.0)
    found = believed(ports)
    assert found and all(found[block] <= EXPECTED[block] for block in found), found


def test_a_gateway_that_closes_after_each_answer_is_asked_on(run):
    gateway, ports = run(lambda _, answer: [(0, answer), (0, None)])
    until(lambda: counts(ports, "reads") >= 10, 60.0)
    assert believed(ports) == EXPECTED and gateway.connections >= 10


def test_a_gateway_that_closes_in_the_middle_of_an_answer_gives_no_value(run):
    _, ports = run(lambda number, answer: [(0, answer[:50]), (0, None)] if number % 2 else [(0, answer)])
    until(lambda: counts(ports, "reads") >= 5, 60.0)
    found = believed(ports)
    assert found and all(found[block] <= EXPECTED[block] for block in found)


def test_a_pack_that_is_not_there_is_silent_and_nothing_else(run):
    _, ports = run(unit_id=5)
    until(lambda: counts(ports, "timeouts") >= 3, 60.0)
    assert not good(ports) and not ports.stats(0)["slaves"][0]["alive"]
