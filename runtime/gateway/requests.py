"""Requests in, answers out: roles, token buckets, idempotence, and what the core made of an order."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidegate.ext.abi import shared
from tidegate.ext.abi.shared import OrderKind
from tidegate.hal.description import Description
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway import ops
from tidegate.runtime.gateway.alarm_shelf import AlarmShelf, Shelved
from tidegate.runtime.gateway.carbon_shown import CarbonShown
from tidegate.runtime.gateway.causes import Causes
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.grid_operator import GridOperator
from tidegate.runtime.gateway.journal_writer import JournalWriter, replay_bytes
from tidegate.runtime.gateway.orders_held import ACK, EXPORT, IMPORT, MANUAL, MODE, PLAN, SETPOINT, Order, left_ms
from tidegate.runtime.gateway.peers import LOCK_AFTER, LOCK_NS, Answers, Asked, Peer
from tidegate.runtime.gateway.pushed_jobs import loads_of, sort_jobs
from tidegate.runtime.gateway.records import Records
from tidegate.runtime.gateway.site_view import SiteView

APPLY_NS = 250_000_000  # the core takes orders over every cycle, the longest of which is 100 ms
STALL_NS = 1_000_000_000  # an image older than this is not shown as the present
OWN_W = 0.5  # the core's orders are whole watts
Route = object  # where an answer goes; only `send` looks into it
Send = Callable[[Route, bytes], None]
STOPS = (b"\xa4stop", b"\xa4lock")  # as MessagePack has them: looked for before a message is decoded


@dataclass
class Call:
    """A request on its way: what an operation's `serve` may use."""

    server: "Server"
    route: Route
    peer: Peer
    now_ns: int
    asked: Asked

    @property
    def site(self) -> SiteView:
        """What the site is and does now."""
        return self.server.site

    @property
    def desk(self) -> Desk:
        """Where orders are taken."""
        return self.server.desk

    @property
    def utc_ns(self) -> int:
        """Now, by the wall clock."""
        return self.server.records.clock.utc_ns(self.now_ns)


STILL_ACTIVE = "; still active"
ACCOUNT_FIELDS = ("what", "meter", "quantity", "unit", "at_utc_s", "closing", "opening", "reason")


@dataclass
class Waiting:
    """A command that the core has yet to take over."""

    route: Route
    asked: Asked
    request: ops.Operation
    orders: list[Order]
    deadline_ns: int
    seen_cycle: int = -1
    more: list[Route] = field(default_factory=list)  # of the same request asked again


@dataclass
class Pushed:
    """Job records that are not on disk yet, and who waits for that."""

    route: Route
    asked: Asked
    request: ops.Operation
    refused: list[str]
    accepted: int | None  # None: no jobs were
    more: list[Route] = field(default_factory=list)


class Server:
    """Serves requests. `send` puts an answer on its way to the peer that `route` stands for."""

    def __init__(
        self,
        site: Description,
        memory: shared.Shared,
        records: Records,
        journal: "JournalWriter[Replayed]",
        desk: Desk,
        send: Send,
    ) -> None:
        self.site = SiteView(site, memory, records, desk)
        self.memory = memory
        self.records = records
        self.journal = journal
        self.desk = desk
        self.send = send
        self.causes = Causes(self, lambda: dict(ops.OPS))
        self.answers = Answers()
        self.waiting: list[Waiting] = []
        self.pushed: dict[int, Pushed] = {}  # seq in the journal of jobs
        self.put_jobs: Callable[..., int] = lambda jobs, by, **more: -1
        self._loads = loads_of(site)
        self.carbon_shown = CarbonShown()
        self.shelf = AlarmShelf()
        self.carbon_seq = 0
        self.publish: Callable[[str, bytes], None] = lambda topic, payload: None
        self.grid_operator: GridOperator | None = None
        self.counts = {"requests": 0, "refused": 0, "malformed": 0, "dropped": 0, "commands": 0, "failed": 0}
        self.health_more: Callable[[], dict[str, object]] = dict
        self.recordings: Path | None = None  # where the recorder writes; else recordings_lack says why nobody does
        self.recordings_lack = ""

    # ---- one message ----

    def serve(self, route: Route, peer: Peer, data: bytes | memoryview) -> None:
        """Answer one message, now or when the core has acted; silent where the peer floods."""
        now_ns = time.monotonic_ns()
        flooding = not peer.requests.take(now_ns)
        if flooding and not any(word in bytes(data[: messages.COMMAND_BYTES_MAX]) for word in STOPS):
            self.counts["dropped"] += 1
            return
        self.counts["requests"] += 1
        request: ops.Operation | None = None
        try:
            request = ops.parse(data)
            if flooding and not _is_stop(request):
                self.counts["dropped"] += 1
                return
            self._admit(peer, request, now_ns)
            answer = self._answer(Call(self, route, peer, now_ns, Asked.of(peer, request.id, data)), request)
        except Refused as why:
            if flooding:
                self.counts["dropped"] += 1
                return
            if why.code in ("malformed", "too-large", "version", "unknown-op", "invalid-field"):
                self.counts["malformed"] += 1
                if not peer.complaints.take(now_ns):
                    self.counts["dropped"] += 1
                    return
            self.counts["refused"] += 1
            answer = self._refusal(request, why)
        except Exception as why:  # a request of ours that we cannot serve must not end the gateway
            answer = self._failure(request, why)
        if answer is not None:
            self.send(route, answer)

    def _failure(self, request: ops.Operation | None, why: Exception) -> bytes:
        """The answer where the gateway itself failed; the log has the place, the journal the fact."""
        traceback.print_exception(why)
        said = f"{type(why).__name__}: {why}"[: messages.TEXT_MAX]
        self.counts["failed"] += 1
        self.desk.audit.append(("gateway", "internal", said))
        return self._refusal(request, Refused("internal", said))

    def _admit(self, peer: Peer, request: ops.Operation, now_ns: int) -> None:
        op = request.op()
        urgent = _is_stop(request)
        if now_ns < peer.locked_until_ns and not (urgent and peer.may(request.role)):
            raise Refused(
                "locked",
                "locked after too many requests that were not allowed",
                expires_ms=left_ms(peer.locked_until_ns, now_ns),
            )
        is_ours_alone = peer.lacks(op, is_command=isinstance(request, ops.Command))
        if is_ours_alone or not peer.may(request.role):
            peer.forbidden += 1
            if peer.forbidden >= LOCK_AFTER:
                peer.forbidden = 0
                peer.locked_until_ns = now_ns + LOCK_NS
                said = f"{peer.name}: {LOCK_AFTER} requests that its role does not permit"
                self.desk.audit.append(("access", "locked", said))
            if is_ours_alone:
                raise Refused("not-allowed", f"{op} is no work of {peer.name}")
            raise Refused("not-allowed", f"{op} needs the role {request.role}, {peer.name} has {peer.role}")
        bucket = peer.commands
        if isinstance(request, ops.Read):
            bucket = peer.replays if isinstance(request, ops.Replay) else peer.reads
        if urgent:  # the first always goes through; what says it again may wait
            bucket = peer.stops
            if not self.desk.stopped:
                return
        if not bucket.take(now_ns):
            raise Refused("busy", f"more than {bucket.per_s:.0f} {op} a second", expires_ms=int(1000 / bucket.per_s))

    def _answer(self, call: Call, request: ops.Operation) -> bytes | None:
        if not isinstance(request, ops.Command):
            found = request.serve(call)
            return messages.encode({**self._head(request, "ok"), **found}) if isinstance(found, Mapping) else None
        kept = None if request.always_done else self.answers.find(call.asked, call.now_ns)
        if kept is not None:
            if request.lifts_stop and kept.t_ns <= self.desk.stopped_ns:
                raise Refused("replayed", "it was asked before the stop; give it an id of its own")
            if kept.answer is None:
                everyone: list[Waiting | Pushed] = [*self.waiting, *self.pushed.values()]
                for waiting in everyone:
                    if waiting.asked == call.asked:
                        waiting.more.append(call.route)
            return kept.answer
        call.peer.user, call.peer.for_remote = request.user or "", request.for_remote
        if request.needs_core and not _is_stop(request):
            self.desk.stops.check_order(call.peer)
        if request.needs_core:
            self._check_in_time(request, call.now_ns)
            self.counts["commands"] += 1
        found = request.serve(call)
        if not self.memory.running and _is_stop(request):
            raise Refused("core-down", "the core does not run; the stop is kept for its next start")
        if isinstance(found, Mapping):
            return self._done(call.asked, request, found, call.now_ns)
        if found is not None:
            self.answers.keep(call.asked, call.now_ns, None)
            self.waiting.append(Waiting(call.route, call.asked, request, found, call.now_ns + APPLY_NS))
        return None

    def _check_in_time(self, request: ops.Command, now_ns: int) -> None:
        limit = request.not_after_t_ns
        if limit is not None and now_ns > limit:
            raise Refused("late", f"arrived {(now_ns - limit) / 1e6:.1f} ms behind its not_after_t_ns")
        if limit is not None and limit - now_ns > messages.NOT_AFTER_MAX_NS:
            raise Refused("late", f"asks to stay valid for more than {messages.NOT_AFTER_MAX_NS // 10**9} s")
        if not self.memory.running and not _is_stop(request):
            raise Refused("core-down", "the core does not run")

    # ---- what is answered later ----

    def order_of_grid_operator(self, call: Call, request: ops.GridOperator) -> list[Order]:
        """Take or release an order of the grid's operator. Raises Refused."""
        peer, desk = call.peer, self.grid_operator
        if desk is None:
            raise Refused("unavailable", "this gateway keeps no orders of a grid operator")
        if request.action == "release":
            seqs = desk.release(peer.name, peer.who, peer.role, call.now_ns, call.utc_ns)
            text = "released"
        else:
            seqs = desk.order(
                peer.name, peer.who, peer.role, import_w_max=request.import_w_max, export_w_max=request.export_w_max,
                stop=request.stop, reference=request.reference, for_ns=request.for_ms * 1_000_000,
                now_ns=call.now_ns, utc_ns=call.utc_ns,
            )  # fmt: skip
            text = desk.held.text if desk.held is not None else ""
        return [Order(kind, seq, by=text) for kind, seq in seqs]

    def push_jobs(self, call: Call, request: ops.Jobs) -> None:
        """Journal job records; `journaled` answers. No core is needed for that."""
        if self.journal.error:
            raise Refused("unavailable", f"the journal cannot be written: {self.journal.error}"[: messages.TEXT_MAX])
        good, refused = sort_jobs(request.jobs, self._loads, call.utc_ns // 10**9)
        if not good:
            raise Refused("invalid-field", refused[0], refused=refused)
        self.answers.keep(call.asked, call.now_ns, None)
        seq = self.put_jobs(good, call.peer.who)
        self.pushed[seq] = Pushed(call.route, call.asked, request, refused, len(good))

    def push_account(self, call: Call, request: ops.Account) -> None:
        """Journal what a person at the site says of a meter or the key; `journaled` answers. Raises Refused."""
        if not call.peer.at_site:
            raise Refused("not-allowed", "what was replaced is said at the site: on its console, or by tidegate carbon")
        if self.journal.error:
            raise Refused("unavailable", f"the journal cannot be written: {self.journal.error}"[: messages.TEXT_MAX])
        if request.what != "key" and not request.meter:
            raise Refused("invalid-field", f"meter: {request.what} needs the name of a flow or a meter")
        said = {key: getattr(request, key) for key in request.__struct_fields__ if key in ACCOUNT_FIELDS}
        self.answers.keep(call.asked, call.now_ns, None)
        seq = self.put_jobs([], call.peer.who, account=said)
        self.pushed[seq] = Pushed(call.route, call.asked, request, [], None)
        call.desk.audit.append(
            ("note", "account", f"{call.peer.who}: {request.what} {request.meter} {request.quantity}")
        )

    def shelve(self, call: Call, request: ops.Shelve) -> None:
        """Put an alarm on the shelf or take it off. Raises Refused."""
        site = self.site.described
        faults, units = {fault.id for fault in site.faults}, {unit.name for unit in site.units}
        if request.unit not in units or request.alarm not in faults:
            place = f"{request.unit} {request.alarm}"
            raise Refused("invalid-field", f"{place}: no such alarm; units: {', '.join(sorted(units))}; ids: op alarms")
        if request.for_ms == 0:
            row = self.shelf.end(request.unit, request.alarm)
            if row is None:
                raise Refused("invalid-field", f"{request.unit} {request.alarm} is not shelved")
            self._unshelved(row, f"by {call.peer.who}")
            return
        if not request.reason.strip():
            raise Refused("invalid-field", "reason: say why it is put aside")
        if self.shelf.full and self.shelf.of(request.unit, request.alarm) is None:
            raise Refused("unavailable", "too many alarms are shelved; take one back first")
        try:
            self.shelf.put(request.unit, request.alarm, call.peer.who, request.reason.strip(), request.for_ms / 1000)
        except OSError as why:
            raise Refused("unavailable", f"not shelved, since it cannot be kept: {why}"[: messages.TEXT_MAX]) from None
        said = f"{request.unit}: for {request.for_ms // 1000} s by {call.peer.who}: {request.reason.strip()}"
        call.desk.audit.append(("shelve", request.alarm, said))

    def _unshelved(self, row: Shelved, why: str) -> None:
        active = any(
            fault.id == row.alarm and self.site.described.units[unit].name == row.unit
            for unit, place in self.site.bits("fault_bits")
            for at, fault in enumerate(self.site.described.faults)
            if (at if fault.row is None else fault.row) == place and unit < len(self.site.described.units)
        )
        self.desk.audit.append(("unshelve", row.alarm, f"{row.unit}: {why}{STILL_ACTIVE if active else ''}"))

    def show_carbon(self, request: ops.ShowCarbon) -> None:
        """Hold the sidecar's figures and publish them. Raises Refused for a page out of its turn."""
        wrong = self.carbon_shown.take(request.of, request.utc_s, request.page, request.pages, request.rows)
        if wrong:
            raise Refused("invalid-field", wrong)
        self.carbon_seq += 1
        head = self.records.head("carbon", self.carbon_seq, self.memory.cycle, time.monotonic_ns())
        more = {"of": request.of, "utc_s": request.utc_s, "page": request.page, "pages": request.pages}
        self.publish("carbon", messages.encode({**head, **more, "rows": msgspec.to_builtins(request.rows)}))

    def journaled(self, seq: int) -> None:
        """Answer the push whose records are on disk now."""
        pushed = self.pushed.pop(seq, None)
        if pushed is None:
            return  # of the gateway before this one
        more: dict[str, object] = {} if pushed.accepted is None else {"accepted": pushed.accepted}
        if pushed.refused:
            more["refused"] = pushed.refused
        answer = self._done(pushed.asked, pushed.request, more, time.monotonic_ns())
        for route in (pushed.route, *pushed.more):
            self.send(route, answer)

    def replay(self, call: Call, request: ops.Replay) -> None:
        """Have the reading thread look; what it finds is the answer. Raises Refused where too many wait."""
        journal, head = self.journal.stream(request.stream), self._head(request, "ok")
        boot = bytes.fromhex(request.boot) if request.boot else None

        def look() -> None:
            try:
                records, end = journal.after(boot, request.seq, request.count)
            except (KeyError, FileNotFoundError):
                gone = f"boot {request.boot} is not held any more; ask without boot for the oldest"
                answer.refused = Refused("gone", gone)
            except Exception as why:  # handed to the one who asked
                answer.failed = why
            else:
                answer.found = replay_bytes(head, records, end)

        answer = Replayed(call.route, request)
        if not self.journal.ask(answer, look):
            raise Refused("busy", "too many replays at once", expires_ms=100)

    def replayed(self, answer: "Replayed") -> None:
        """Send what the reading thread has found."""
        found = answer.found
        if answer.refused is not None:
            found = self._refusal(answer.request, answer.refused)
        elif answer.failed is not None:
            found = self._failure(answer.request, answer.failed)
        self.send(answer.route, found)

    # ---- answers ----

    def _head(self, request: ops.Operation, status: str) -> dict[str, object]:
        return self._answer_head(request.v, request.id, request.op(), status)

    def _answer_head(self, version: int, ident: str, op: str, status: str) -> dict[str, object]:
        return {
            "v": version,
            "id": ident,
            "op": op,
            "status": status,
            "boot": self.records.boot,
            "cycle": self.memory.cycle,
            "t_ns": time.monotonic_ns(),
        }

    def _done(self, asked: Asked, request: ops.Operation, more: Mapping[str, object], now_ns: int) -> bytes:
        answer = messages.encode({**self._head(request, "applied"), **more})
        if not (isinstance(request, ops.Command) and request.always_done):
            self.answers.keep(asked, now_ns, answer)
        return answer

    def _refusal(self, request: ops.Operation | None, why: Refused) -> bytes:
        found = why.more.pop("request", None)
        if request is not None:
            head = self._head(request, "refused")
        else:
            asked = found if isinstance(found, dict) else {}
            ident, op = (messages.shown(_text(asked.get(key)))[:most] for key, most in (("id", 64), ("op", 16)))
            version = asked.get("v") if asked.get("v") in messages.VERSIONS else messages.WIRE_VERSION
            head = self._answer_head(int(version or messages.WIRE_VERSION), ident, op, "refused")
        return messages.encode({**head, "code": why.code, "text": why.text, **why.more})

    def step(self, now_ns: int) -> None:
        """Answer the commands that the core has taken over since, and those that it has not in time."""
        self.waiting = [waiting for waiting in self.waiting if not self._settled(waiting, now_ns)]
        for row in self.shelf.over():
            self._unshelved(row, "its time is over")

    def _settled(self, waiting: Waiting, now_ns: int) -> bool:
        taken = all(order.seq == 0 or self._applied(order.kind) >= order.seq for order in waiting.orders)
        if taken and waiting.seen_cycle < 0:
            waiting.seen_cycle = self.memory.cycle
        # The image of the cycle that took the order over is published at that cycle's end, and one later for certain.
        if waiting.seen_cycle >= 0 and self.memory.cycle > waiting.seen_cycle:
            answer = messages.encode(self._outcome(waiting))
        elif now_ns > waiting.deadline_ns:
            self.counts["refused"] += 1
            answer = self._refusal(waiting.request, self._give_up(waiting))
        else:
            return False
        self.answers.keep(waiting.asked, now_ns, answer)
        for route in (waiting.route, *waiting.more):
            self.send(route, answer)
        return True

    def _give_up(self, waiting: Waiting) -> Refused:
        """What is said of orders that a core which stands still did not take over: they must not come true later.

        What only makes things safer stands, and is not known to be in force.
        """
        silent = f"the core did not take it over within {APPLY_NS // 10**6} ms"
        if all([self.desk.take_back(order) for order in waiting.orders]):
            return Refused("not-applied", f"{silent}; it was taken back")
        return Refused("unknown", f"{silent}; it stands, and holds as soon as the core goes on")

    def _applied(self, kind: int) -> int:
        return self.memory.plan_applied if kind == PLAN else self.memory.applied(kind)

    def _outcome(self, waiting: Waiting) -> dict[str, object]:
        order = waiting.orders[0]
        answer = self._head(waiting.request, "applied")
        if order.kind in (SETPOINT, MANUAL) and order.request_w is not None:
            modes = ("run", "derated") if order.kind == SETPOINT else ("manual",)
            applied_w, by = self._clamp(order.request_w, modes)
            answer["applied_w"] = applied_w
            if abs(applied_w - order.request_w) > OWN_W:
                text = f"{order.request_w:.0f} W asked, {applied_w:.0f} W by {by}"
                answer.update(status="clamped", by=by, text=text)
            lease = self.desk.lease
            if order.kind == MANUAL:
                if self.desk.manual is not None:
                    answer["expires_ms"] = left_ms(self.desk.manual.until_ns, time.monotonic_ns())
            elif lease is not None:
                answer["expires_ms"] = left_ms(lease.expires_ns, time.monotonic_ns())
                answer["next_seq"] = lease.seq + 1
        elif order.kind in (IMPORT, EXPORT):
            shown = next((one for one in waiting.orders if one.clamped_w is not None), order)
            answer["applied_w"] = shown.request_w
            if shown.clamped_w is not None:
                text = f"{shown.request_w:.0f} W asked, {shown.clamped_w:.0f} W by {shown.by}"
                answer.update(status="clamped", applied_w=shown.clamped_w, by=shown.by, text=text)
        elif order.kind in (ACK, MODE):
            answer["text"] = "; ".join(filter(None, (f"mode {self.site.mode()}", order.said)))[: messages.TEXT_MAX]
        elif order.by:
            answer["text"] = order.by
            held = self.grid_operator.held if self.grid_operator is not None else None
            if order.kind == OrderKind.OPERATOR_IMPORT_W_MAX:
                left_ns = 0 if held is None else held.end_utc_ns - self.records.clock.utc_ns(time.monotonic_ns())
                answer["expires_ms"] = max(0, left_ns // 1_000_000)
        return answer

    def _clamp(self, request_w: float, modes: tuple[str, ...]) -> tuple[float, str]:
        """What the core can make of a request now, W, and the reason that binds."""
        now = self.site.values(("site.corridor_lo_w", "site.corridor_hi_w", "site.envelope_lo_w", "site.envelope_hi_w"))
        mode = self.site.mode()
        if mode not in modes:
            return 0.0, mode
        lo_w, hi_w = now["site.corridor_lo_w"], now["site.corridor_hi_w"]
        if lo_w is None or hi_w is None:
            return 0.0, "unknown"
        applied_w = min(max(request_w, lo_w), hi_w)
        envelope = now["site.envelope_lo_w"], now["site.envelope_hi_w"]
        if None not in envelope and applied_w in envelope:
            return applied_w, "envelope"
        return applied_w, self.site.reason("site.reason")

    def health(self) -> dict[str, object]:
        """State of core, loop, journal, gateway and lease."""
        now_ns = time.monotonic_ns()
        picture = self.memory.read_image()
        age_ns = now_ns - picture.t_ns if picture is not None and picture.t_ns else None
        return {
            "core": {
                "running": self.memory.running,
                "pid": self.memory.core_pid,
                "cycle": self.memory.cycle,
                "proof": self.memory.proof,
                "image_age_ms": None if age_ns is None else age_ns / 1e6,
                "stalled": age_ns is None or age_ns > STALL_NS,
            },
            "guard": self.memory.guard(),
            "mode": self.site.mode(),
            "loop": self.memory.loop_stats(),
            "buses": self.memory.buses(),
            "lease": self.site.lease(),
            "journal": {
                "error": self.journal.error,
                "errors": self.journal.errors,
                "waiting": self.journal.waiting,
                "dropped": self.journal.dropped,
                "synced": self.journal.synced,
                "sync_ms_max": self.journal.sync_ns_max / 1e6,
                "bytes": {name: journal.bytes_total for name, journal in self.journal.journals.items()},
                "damages": [str(d) for j in self.journal.journals.values() for d in j.damages][:16],
            },
            "requests": dict(self.counts),
            **self.health_more(),
        }


@dataclass
class Replayed:
    """What the reading thread has found for one who asked for a replay."""

    route: Route
    request: ops.Replay
    found: bytes = b""
    refused: Refused | None = None
    failed: Exception | None = None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_stop(request: ops.Operation) -> bool:
    """An order that may not be kept from anybody: a stop, or a lock, which is one."""
    if isinstance(request, ops.Lock):
        return request.action == "lock"
    return isinstance(request, ops.Mode) and request.mode == "stop"
