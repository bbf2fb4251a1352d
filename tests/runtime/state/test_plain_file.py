"""What stands in the place of a small file: no reader of ours waits for it, fills its memory with it, or ends by it."""

import contextlib
import json
import os
import socket
import stat
import threading
from dataclasses import asdict

import msgspec
import pytest

from tests.runtime.gateway.test_command_handler import Box
from tidegate.runtime.api import curve_keys
from tidegate.runtime.console.users import FREE_FAILURES, LoginLock, UserError, Users
from tidegate.runtime.gateway import grid_operator
from tidegate.runtime.gateway.alarm_shelf import FILE as SHELF
from tidegate.runtime.gateway.alarm_shelf import AlarmShelf
from tidegate.runtime.gateway.lease_file import Ordered, OrdersFile
from tidegate.runtime.gateway.orders_held import Lease, LimitHeld
from tidegate.runtime.state import latches, process_users, stop_file
from tidegate.runtime.state.journal import DiskFiles
from tidegate.runtime.state.plain_file import read_plain

WAIT_S = 60.0
HUGE = 1 << 42  # sparse: whoever reads it whole has no memory left


def endless(path):
    path.symlink_to("/dev/zero")


def huge(path):
    path.touch()
    os.truncate(path, HUGE)


def bound(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as held:
        held.bind(os.path.relpath(path))


SHAPES = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "endless": endless,
    "huge": huge,
    "socket": bound,
    "turns": lambda path: path.symlink_to(path.name),
    "nested": lambda path: path.write_text("[" * 200_000),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00" * 50),
    "empty": lambda path: path.touch(),
}


def refused(kinds, call):
    with pytest.raises(kinds) as why:
        call()
    return str(why.value)


def roles(folder):
    held = curve_keys.Roles(folder / "roles.toml")
    held.reload(10**18)
    return held.problem or refused(
        (curve_keys.KeyProblem, OSError), lambda: curve_keys.read_roles(folder / "roles.toml")
    )


def operator(folder):
    held = grid_operator.GridOperator(Box(), folder / "operator.json", lambda *told: None)
    held.resume(0, 0)
    return held.problem


def shelf(folder):
    held = AlarmShelf()
    held.keep_in(folder)
    return held.damaged


def orders(folder):
    held = OrdersFile(folder / "orders", b"")
    held.read()
    return held.lost


def tokens(folder):
    held = pytest.importorskip("tidegate.runtime.web.access_tokens")
    return refused(held.TokenError, lambda: held.read(folder / "tokens.json"))


def device_key(folder):
    held = pytest.importorskip("tidegate.runtime.state.device_key")
    return refused(held.KeyFileError, lambda: held.DeviceKey.at(folder / "key.pem"))


# file, and what reads it and gives what it says of it
READERS = {
    "latches": (latches.FILE, lambda folder: latches.LatchFile(folder, ["cabinet"]).read()[1]),
    "stops": (stop_file.FILE, lambda folder: stop_file.StopFile(folder, folder).read()[1]),
    "users": ("users.json", lambda folder: refused(UserError, Users(folder).all)),
    "failures": ("failures", lambda folder: LoginLock(folder, 0.0).failures == FREE_FAILURES),
    "roles": ("roles.toml", roles),
    "operator": ("operator.json", operator),
    "shelf": (SHELF, shelf),
    "orders": ("orders", orders),
    "tokens": ("tokens.json", tokens),
    "device's key": ("key.pem", device_key),
}


def in_time(call):
    """What a call gives, in a thread of its own that may stand still without this one."""
    found = []

    def run():
        try:
            found.append(call())
        except BaseException as why:
            found.append(why)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert found, "it stands still"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reader", READERS)
def test_whatever_stands_in_the_place_of_a_file_is_said_at_once(tmp_path, monkeypatch, reader, shape):
    monkeypatch.chdir(tmp_path)
    name, read = READERS[reader]
    SHAPES[shape](tmp_path / name)
    if shape == "empty" and reader == "roles":
        return  # an empty table grants nothing
    assert in_time(lambda: read(tmp_path)), f"{reader}: {shape} is read without a word"


def test_a_file_is_read_up_to_its_bound_and_no_further(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert read_plain(path, 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        read_plain(path, 99)
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none")


@pytest.mark.parametrize("shape", ["pipe", "folder", "socket"])
def test_a_mark_of_a_stop_and_a_segment_that_are_no_files_keep_nobody_waiting(tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    SHAPES[shape](tmp_path / stop_file.MARK)
    kept = stop_file.StopFile(tmp_path, tmp_path)
    assert in_time(kept.mark) and kept.marked() and kept.read()[0].stop is not None, "a stop, whatever the mark is"
    SHAPES[shape](tmp_path / "segment")
    for call in (
        lambda: DiskFiles().read(tmp_path / "segment", 0, 10),
        lambda: DiskFiles().truncate(tmp_path / "segment", 0),
    ):
        with pytest.raises(OSError):
            in_time(call)


def test_a_count_of_failures_below_zero_gives_no_more_tries(tmp_path):
    (tmp_path / "failures").write_text("-1000000")
    assert LoginLock(tmp_path, 0.0).left_s(0.0) > 0


HELD = {"peer": "key:dso", "who": "dso", "reference": "", "begin_utc_ns": 1, "end_utc_ns": 10**15, "import_w_max": 5e3,
        "export_w_max": None, "stop": False, "measured": asdict(grid_operator.Measured())}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"end_utc_ns": "x"}, {"end_utc_ns": 10**30}, {"end_utc_ns": -1}, {"begin_utc_ns": 1.5}, {"import_w_max": "abc"},
        {"import_w_max": float("nan")}, {"import_w_max": -1.0}, {"import_w_max": float("inf")}, {"import_w_max": None},
        {"measured": []}, {"stop": 2}, {"who": None},
    ],
    ids=str,
)  # fmt: skip
def test_an_operators_order_that_no_operator_gave_is_named_and_the_gateway_goes_on(tmp_path, wrong):
    (tmp_path / "operator.json").write_text(json.dumps(HELD | wrong))
    assert operator(tmp_path)


def test_an_operators_order_stands_after_a_restart_also_where_the_clock_has_lost_years(tmp_path):
    (tmp_path / "operator.json").write_text(json.dumps(HELD | {"begin_utc_ns": 17 * 10**17, "end_utc_ns": 18 * 10**17}))
    box = Box()
    held = grid_operator.GridOperator(box, tmp_path / "operator.json", lambda *told: None)
    held.resume(5, 0)
    assert not held.problem and held.held is not None
    value, expires_ns = box.orders[grid_operator.OrderKind.OPERATOR_IMPORT_W_MAX]
    assert value == 5e3 and 5 < expires_ns < 1 << 62


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": {"a": LimitHeld(1.0, 1.0, 1 << 63)}}, {"limits": {"a": LimitHeld(float("nan"), 1.0, 5)}},
        {"lease": Lease("a" * 32, "b", "ems", -1, 5)}, {"lease": Lease("a" * 32, "b", "ems", 1, 5, 0, float("nan"), 5)},
    ],
    ids=str,
)  # fmt: skip
def test_orders_kept_with_times_or_numbers_that_cannot_be_are_named(tmp_path, wrong):
    (tmp_path / "orders").write_bytes(msgspec.msgpack.encode(Ordered(b"", **wrong)))
    assert orders(tmp_path)


@pytest.mark.parametrize("instead", ["another file", "another folder"])
def test_what_was_replaced_while_a_folder_is_handed_out_keeps_its_rights(tmp_path, instead):
    """A process that writes its folder puts a link to the site file in the place of a file that it saw there."""
    room, away = tmp_path / "room" / "inner", tmp_path / "etc"
    for folder in (room, away):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        (folder / "file").chmod(0o600)
    seen = (room / "file").lstat()
    assert process_users._file(room / "file", seen, os.getegid(), 0o2770) == []
    assert stat.S_IMODE((room / "file").stat().st_mode) == 0o660, "what was not replaced is handed out"
    if instead == "another file":
        (room / "file").unlink()
        (room / "file").symlink_to(away / "file")
    else:
        room.rename(room.with_name("before"))
        room.symlink_to(away)
    said = process_users._file(room / "file", seen, os.getegid(), 0o2770)
    assert "replaced" in said[0] and stat.S_IMODE((away / "file").stat().st_mode) == 0o600


def test_a_recording_that_is_a_pipe_keeps_no_reader_waiting(tmp_path):
    held = pytest.importorskip("tidegate.runtime.recording.recording_file")
    os.mkfifo(tmp_path / "a.mcap")
    for call in (held.read, held.span_utc_ns):
        with pytest.raises((held.RecordingError, OSError)):
            in_time(lambda call=call: call(tmp_path / "a.mcap"))


def test_what_became_a_link_or_a_pipe_is_not_packed_and_told(tmp_path):
    make = pytest.importorskip("tidegate.runtime.backup.make")
    (tmp_path / "key").write_text("secret")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    os.mkfifo(tmp_path / "pipe")
    left_out = []
    for name in ("link", "pipe"):
        assert in_time(lambda name=name: make._frozen(name, tmp_path / name, tmp_path / "copy", left_out)) is None
    assert left_out == ["link: is no file any more", "pipe: is no file any more"]
    assert make._frozen("key", tmp_path / "key", tmp_path / "copy", left_out) is not None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n", 1 << 30), ("n", "x"), ("n", 3), ("n", -1), ("n", 1.5), ("n", True), ("r", 10**9), ("p", 1000),
        ("salt", "%"), ("salt", 5), ("hash", None), ("hash", "\u00e9"), ("hash", ""), ("role", ["maintain"]),
        ("more", 1),
    ],
)  # fmt: skip
def test_a_user_whose_row_nobody_can_log_in_with_is_damage_and_ends_no_login(tmp_path, key, value):
    users = Users(tmp_path, cost=2)
    users.put("anna", "maintain", "tree lamp river nine")
    assert users.check("anna", "tree lamp river nine") is not None
    table = json.loads(users.path.read_text())
    table["users"]["anna"][key] = value
    users.path.write_text(json.dumps(table))
    assert "damaged" in refused(UserError, lambda: users.check("anna", "tree lamp river nine"))
