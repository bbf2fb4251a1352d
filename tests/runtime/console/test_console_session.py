"""The console's session on a clock of its own: who gets in, what a line may hold, and that `stop` always answers."""

import os
import random

import pytest

from tests.runtime.console.console_rig import NAME, PASSWORD, USER, Desk
from tidegate.runtime.api.blocking_client import ClientError
from tidegate.runtime.console.session import IDLE_S
from tidegate.runtime.console.terminal_probe import KEY_PRESENCE_S
from tidegate.runtime.console.users import FREE_FAILURES, SCRYPT_N, UserError, Users

GUESSES = int(os.environ.get("TIDEGATE_GUESSES", "10000"))  # make fuzz: 100000


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def stops(desk):
    return desk.gateway.asked("mode")


# ---- who gets in ----


def test_the_first_user_is_made_at_the_cabinet_and_there_is_no_default_password(tmp_path):
    desk = Desk(tmp_path, users=False)
    assert "no default password" in desk.enter("login")
    assert "another name" in desk.enter("wrong-cabinet")
    assert desk.session.user is None and not desk.users.all()
    desk.enter("login", NAME, "berta")
    assert "differ" in desk.enter("long-enough-1", "long-enough-2")
    assert not desk.users.all()
    assert "role maintain" in desk.enter("login", NAME, "berta", "long-enough-1", "long-enough-1")
    assert desk.session.who == "berta (maintain)"
    kept = desk.users.path
    assert kept.stat().st_mode & 0o077 == 0 and "long-enough" not in kept.read_text()


@pytest.mark.parametrize("password", ["short", "", "anna"])
def test_a_weak_password_is_refused(tmp_path, password):
    with pytest.raises(UserError):
        Users(tmp_path).put(USER, "maintain", password)


def test_new_passwords_cost_what_the_rfc_names_for_logins(tmp_path):
    users = Users(tmp_path)
    users.put(USER, "maintain", PASSWORD)
    assert users.all()[USER].n == SCRYPT_N == 1 << 14
    assert users.check(USER, PASSWORD) is not None and users.check(USER, PASSWORD + "x") is None
    assert users.check("nobody", PASSWORD) is None


def test_the_last_maintainer_cannot_be_removed(desk):
    with pytest.raises(UserError, match="at least one"):
        desk.users.remove(USER)
    with pytest.raises(UserError, match="at least one"):
        desk.users.put(USER, "read", PASSWORD)


def test_a_damaged_users_file_lets_nobody_in_and_nobody_be_made(desk):
    desk.users.path.write_text("{")
    assert "damaged" in desk.enter("login anna")
    assert desk.session.user is None
    assert "stop applied" in desk.enter("stop")


def test_nothing_but_help_login_and_stop_works_without_login(desk):
    for form in desk.session.grammar.forms:
        words = form.text.replace("[", "").replace("]", "")
        if form.role:
            assert "login first" in desk.enter(words), form.text
    assert desk.gateway.calls == []


def test_a_password_is_neither_shown_nor_kept_in_the_history(desk):
    desk.enter("login anna")
    assert PASSWORD not in desk.type(PASSWORD)
    desk.type("\r")
    assert desk.session.user is not None
    assert all(PASSWORD not in line for line in desk.session.editor.history)


def test_the_lock_doubles_and_stop_works_meanwhile(desk):
    lengths = []
    for _ in range(FREE_FAILURES + 3):
        desk.now_s += desk.lock.left_s(desk.now_s) + 0.1
        desk.login(password="wrong-wrong")
        lengths.append(round(desk.lock.left_s(desk.now_s), 6))
    assert lengths == [0.0] * (FREE_FAILURES - 1) + [60.0, 120.0, 240.0, 480.0]
    assert "locked for 8:00" in desk.enter("login anna")
    assert "stop applied" in desk.enter("stop")


def test_a_restart_does_not_shorten_the_lock(tmp_path):
    desk = Desk(tmp_path)
    for _ in range(FREE_FAILURES):
        desk.login(password="wrong-wrong")
    again = Desk(tmp_path)
    assert again.lock.left_s(again.now_s) == 60.0


def test_guesses_at_line_speed_let_nobody_in_and_stop_still_answers(tmp_path):
    """As fast as the line brings them: each guess moves the clock by its bytes at 9600 baud."""
    desk = Desk(tmp_path)
    checked = []
    check = desk.users.check
    desk.users.check = lambda name, password: checked.append(1) or check(name, password)
    random.seed(20260301)
    for _ in range(GUESSES):
        guess = f"{random.getrandbits(48):012x}"
        desk.session.feed(b"login anna\r")
        desk.session.feed(guess.encode() + b"\r")
        desk.now_s += (len(guess) + 12) * 10 / 9600
    assert desk.session.user is None
    desk.take()
    assert "stop applied" in desk.enter("stop") and len(stops(desk)) == 1
    assert 5 <= len(checked) < 40, "the lock must refuse most guesses unseen"
    desk.now_s += 3601
    assert "role maintain" in desk.login(), "the right password still gets in when the lock is over"


def test_one_login_at_a_time_and_the_second_technician_is_told_who(tmp_path):
    first, second = Desk(tmp_path), Desk(tmp_path)
    first.login()
    said = second.login()
    assert "anna at ttyTEST since" in said and second.session.user is None
    assert "stop applied" in second.enter("stop")
    first.enter("logout")
    assert "role maintain" in second.login()


def test_who_is_idle_is_logged_out(desk):
    desk.login()
    assert "logged out" not in desk.wait(IDLE_S - 2, 1.0)
    assert "anna is logged out: no key for 5 minutes" in desk.wait(4, 1.0)
    assert desk.session.user is None
    assert desk.gateway.asked("note")[-1]["name"] == "logout"


def test_every_command_says_on_whose_behalf(desk):
    desk.login()
    desk.enter("limit import 40kW for 30s", "arm", NAME, "stop")
    named = {op: fields.get("user") for op, fields in desk.gateway.calls}
    assert named == {"note": USER, "limit": USER, "mode": USER}
    assert desk.gateway.asked("limit") == [{"user": USER, "import_w_max": 40_000.0, "for_ms": 30_000}]


def test_roles_are_those_of_the_api(desk):
    desk.users.put("olga", "operate", PASSWORD)
    desk.users.put("rita", "read", PASSWORD)
    desk.login("rita")
    assert "needs the role operate, rita has read" in desk.enter("limit import 40kW for 30s")
    desk.enter("logout")
    desk.login("olga")
    assert "needs the role maintain, olga has operate" in desk.enter("manual 1kW")
    assert "applied" in desk.enter("limit import 40kW for 30s")
    assert "[unknown" not in desk.enter("ack") and not desk.gateway.asked("ack")


def test_a_technician_locks_the_site_out_under_their_own_name_with_a_reason(desk):
    assert "login" in desk.enter("lock busbar-work") and not desk.gateway.asked("lock")
    desk.login()
    assert "stays stopped until anna" in desk.enter("lock busbar-work")
    desk.enter("unlock", "unlock berta", "control local")
    asked = desk.gateway.asked("lock")
    assert asked[0] == {"user": USER, "action": "lock", "name": USER, "reason": "busbar-work"}
    assert [one["name"] for one in asked[1:]] == [USER, "berta"] and asked[1]["action"] == "unlock"
    assert desk.gateway.asked("control") == [{"user": USER, "place": "local"}]
    assert "local or remote" in desk.enter("control sideways")


# ---- privileged commands ----


@pytest.mark.parametrize("line", ["manual 1kW", "arm", "test step 1kW", "user add otto read", "user remove anna"])
@pytest.mark.parametrize("word", ["", "hall-8", "yes"])
def test_a_wrong_name_of_the_cabinet_does_nothing(desk, line, word):
    desk.login()
    before = len(desk.gateway.calls)
    desk.enter(line)
    assert "nothing was done" in desk.enter(word)
    assert len(desk.gateway.calls) == before and set(desk.users.all()) == {USER}


def test_a_confirmation_that_does_not_come_does_nothing(desk):
    desk.login()
    desk.enter("manual 1kW")
    assert "nothing was done" in desk.wait(31)
    assert not desk.gateway.asked("lease")
    assert "unknown command" in desk.enter(NAME), "a name that comes too late is no answer any more"


def test_ack_shows_what_it_lifts_and_what_stays(desk):
    desk.gateway.why.update(latches=["unit0 bms_alarm", "unit0 bms_silent"], faults=["unit0 bms_silent"])
    desk.login()
    said = desk.enter("ack")
    assert "Lifts: bms_alarm." in said and "Stays, because its cause is still there: bms_silent." in said
    desk.enter(NAME)
    assert len(desk.gateway.asked("ack")) == 1


# ---- stop ----

STATES = {
    "the empty prompt": (),
    "half a line": ("points gr",),
    "the password": ("login anna\r",),
    "a confirmation": ("login anna\r", PASSWORD + "\r", "manual 1kW\r"),
    "a live screen": ("login anna\r", PASSWORD + "\r", "status\r"),
    "a running test step": ("login anna\r", PASSWORD + "\r", "test step 1kW\r", NAME + "\r"),
    "manual power": ("login anna\r", PASSWORD + "\r", "manual 1kW\r", NAME + "\r"),
    "the pager": ("login anna\r", PASSWORD + "\r", "term pager on\r", "term size 80x5\r", "points\r"),
    "an unreadable line": (b"\xff\xfe\x80garbage",),
    "a line of a megabyte": (b"x" * (1 << 20),),
    "half an escape sequence": (b"\x1b[",),
}


@pytest.mark.parametrize("vt100", [False, True], ids=["dumb", "vt100"])
@pytest.mark.parametrize("state", STATES)
def test_stop_answers_at_once_from(tmp_path, state, vt100):
    desk = Desk(tmp_path, vt100=vt100)
    for part in STATES[state]:
        desk.type(part)
    if state in ("half a line", "an unreadable line", "a line of a megabyte", "half an escape sequence"):
        desk.type("\r")
    said = desk.enter("stop")
    assert len(stops(desk)) == 1 and stops(desk)[0]["mode"] == "stop", said
    assert "stop applied" in said
    assert desk.session.background is None


def test_a_garbled_line_that_ends_in_stop_stops(desk):
    desk.type(b"\xf0\xf1 stop\r")
    assert len(stops(desk)) == 1


def test_a_stop_that_the_gateway_does_not_take_is_said_loudly(desk):
    desk.gateway.silent = True
    said = desk.enter("stop")
    assert "STOP WAS NOT TAKEN" in said and "emergency stop" in said


# ---- lines ----


def test_a_line_with_unreadable_bytes_is_not_done(desk):
    desk.login()
    said = desk.type(b"limit import 4\xb0kW for 30s\r")
    assert "1 unreadable bytes: nothing was done" in said
    assert not desk.gateway.asked("limit")


def test_a_line_that_is_too_long_is_not_done_in_part(desk):
    desk.login()
    said = desk.enter("limit import 4kW for 30s" + " " * 300 + "x")
    assert "longer than 256" in said and not desk.gateway.asked("limit")


def test_half_a_line_is_dropped_when_nothing_more_comes(desk):
    desk.type("sto")
    assert "half a line was dropped" in desk.wait(125, 1.0)
    assert "unknown command 'p'" in desk.enter("p")


def test_a_pulled_cable_drops_half_a_line_and_the_login(desk):
    desk.login()
    desk.type("limit import 4kW for 30")
    desk.session.hang_up("the cable was pulled")
    desk.session.open()
    assert "login first" in desk.enter("s") or not desk.gateway.asked("limit")
    assert desk.session.user is None and not desk.gateway.asked("limit")


def test_a_wrong_baud_rate_is_named_with_the_right_one(desk):
    said = ""
    random.seed(7)
    for _ in range(8):
        said += desk.type(bytes(random.randrange(128, 256) for _ in range(16)) + b"\r")
        desk.now_s += 6
    assert said.count("set the terminal to 9600 baud, 8 data bits, no parity") >= 1
    assert said.count("set the terminal") <= 5, "it must not answer every byte"


def test_noise_between_keys_is_not_taken_for_a_wrong_baud_rate(desk):
    said = "".join(desk.type(b"help\r\xff") for _ in range(60))
    assert "set the terminal" not in said


BAD_VALUES = [
    "limit import 5 for 30s",
    "limit import -4kW for 3s",
    "manual 1",
    "manual 1kW 2h",
    "trend site.grid_w -5s",
    "log many",
    "term size 5x5",
    "watch nothing-like-that",
]


@pytest.mark.parametrize("line", BAD_VALUES)
def test_a_value_that_cannot_be_is_refused_with_what_was_expected(desk, line):
    desk.login()
    before = len(desk.gateway.calls)
    said = desk.enter(line)
    assert any(word in said for word in ("say ", "expected", "at most", "not negative", "no point")), said
    assert len(desk.gateway.calls) == before


def test_escape_sequences_in_names_never_reach_the_terminal(tmp_path):
    evil = "x\x1b]0;pwned\x07\x1b[2J\x9b31m\u202e"
    desk = Desk(tmp_path)
    desk.gateway.site["units"][0]["name"] = evil
    desk.gateway.site["points"].append({"name": f"grid.{evil}", "unit": evil, "device": 0, "register": evil})
    desk.gateway.points[f"grid.{evil}"] = [1.0, 4]
    desk.gateway.site["devices"][0]["name"] = evil
    desk.gateway.why.update(faults=[f"unit0 {evil}"], lease={"holder": evil, "priority": evil, "expires_ms": 5})
    desk.gateway.refuses["ack"] = ClientError("internal", evil)
    desk.login()
    for line in ("status", "alarms", "why", "points", "bus", "latency", "log", f"watch grid.{evil[0]}", "help"):
        desk.session.feed(line.encode() + b"\r")
    desk.gateway.why["latches"] = [f"unit0 {evil}"]
    for line in ("ack", NAME):
        desk.session.feed(line.encode() + b"\r")
    sent = bytes(desk.sent)
    assert b"x?]0;pwned??[2J?31m?" in sent, "the name was shown, made harmless"
    assert not {byte for byte in sent} - set(b"\r\n\x08") - set(range(0x20, 0x7F))


def test_question_mark_says_what_can_follow(desk):
    desk.login()
    desk.type("limit ")
    assert "limit import POWER for TIME" in desk.type("?")
    assert desk.session.editor.text == "limit "
    assert "a tighter import limit" in desk.type("?")


def test_tab_completes_words_and_points(desk):
    desk.login()
    desk.type("poi\tgrid.power_l1\t")
    assert desk.session.editor.text == "points grid.power_l1_w "


def test_up_recalls_and_the_line_can_be_edited(desk):
    desk.login()
    desk.enter("points bms1.soc")
    said = desk.type("\x1b[A" + "\x08" * 3 + "temp\r")
    assert "bms1.temp_max_c" in said


# ---- who is still there ----


def test_manual_power_renews_while_the_carrier_is_there_and_ends_when_it_is_not(desk):
    desk.carrier = True
    desk.login()
    desk.enter("manual 2kW 5min", NAME)
    desk.wait(10)
    orders = desk.gateway.asked("setpoint")
    assert 9 <= len(orders) <= 12 and all(o["setpoint_w"] == 2000.0 and o["for_ms"] <= 3000 for o in orders)
    desk.carrier = False
    assert "manual power has ended: nobody is at the console" in desk.wait(0.2)
    assert desk.gateway.asked("lease")[-1]["action"] == "release"
    assert len(desk.gateway.asked("setpoint")) <= len(orders) + 1


def test_a_cable_of_three_wires_ends_manual_power_when_the_terminal_stops_answering(tmp_path):
    desk = Desk(tmp_path, vt100=True)
    desk.login()
    desk.enter("manual 2kW 5min", NAME)
    for _ in range(20):  # the terminal answers each probe
        desk.wait(1.0)
        desk.session.feed(b"\x1b[0n")
    assert desk.session.background is not None
    ended = desk.now_s
    while desk.session.background is not None and desk.now_s < ended + 60:
        desk.wait(0.1)
    assert desk.now_s - ended <= 8.5, "as docs/console.md says"


def test_without_carrier_and_answers_manual_power_needs_a_key_now_and_then(desk):
    desk.login()
    desk.enter("manual 2kW 5min", NAME)
    desk.wait(KEY_PRESENCE_S - 1)
    assert desk.session.background is not None
    desk.type(" ")
    desk.wait(KEY_PRESENCE_S - 1)
    assert desk.session.background is not None
    desk.wait(2)
    assert desk.session.background is None


def test_manual_power_ends_by_itself_with_a_countdown_before(desk):
    desk.carrier = True
    desk.login()
    desk.enter("manual 2kW 40s", NAME)
    said = desk.wait(41)
    assert "manual +2.0 kW 0:30 left" in said and "manual +2.0 kW 0:10 left" in said
    assert "manual power has ended: its time is over; automatic again" in said


@pytest.mark.parametrize("end", ["manual off", "logout", "stop"])
def test_manual_power_ends_at(desk, end):
    desk.carrier = True
    desk.login()
    desk.enter("manual 2kW 5min", NAME)
    desk.enter(end)
    assert desk.session.background is None and desk.gateway.asked("lease")[-1]["action"] == "release"


def test_a_lease_that_is_lost_ends_manual_power_with_the_reason(desk):
    desk.carrier = True
    desk.login()
    desk.enter("manual 2kW 5min", NAME)
    desk.gateway.refuses["lease"] = ClientError("no-lease", "somebody else holds it")
    assert "manual power has ended: refused (no-lease)" in desk.wait(2)


def test_record_shows_what_the_gateway_says(desk):
    desk.login()
    desk.gateway.refuses["record"] = ClientError("unavailable", "the site file says [recorder] mib = 0")
    assert "refused (unavailable): the site file says [recorder] mib = 0" in desk.enter("record")
