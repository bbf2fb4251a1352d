"""Requests in, answers out: roles, token buckets, idempotence, and what the core made of an order."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tidegate.ext.abi import image, shared
from tidegate.hal.description import Description
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway.command_handler import ACK, EXPORT, IMPORT, MANUAL, MODE, PLAN, SETPOINT, Desk, Order
from tidegate.runtime.gateway.journal_writer import JournalWriter, replay_bytes
from tidegate.runtime.gateway.peers import Answers, Peer
from tidegate.runtime.gateway.records import Records

APPLY_NS = 250_000_000  # the core takes orders over every cycle, the longest of which is 100 ms
STALL_NS = 1_000_000_000  # an image older than this is not shown as the present
Send = Callable[[Any, bytes], None]
OWN_W = 0.5  # the core's orders are whole watts


@dataclass
class Waiting:
    """A command that the core has yet to take over."""

    route: Any
    peer: Peer
    request: Any
    orders: list[Order]
    deadline_ns: int
    seen_cycle: int = -1
    more: list[Any] = field(default_factory=list)  # routes of the same request asked again


@dataclass
class Pushed:
    """Job records that are not on disk yet, and who waits for that."""

    route: Any
    peer: Peer
    request: Any
    refused: list[str]
    accepted: int
    more: list[Any] = field(default_factory=list)


class Server:
    """Serves requests. `send` puts an answer on its way to the peer that `route` stands for."""

    def __init__(
        self,
        site: Description,
        memory: shared.Shared,
        records: Records,
        journal: JournalWriter,
        desk: Desk,
        send: Send,
    ) -> None:
        self.memory = memory
        self.records = records
        self.journal = journal
        self.desk = desk
        self.send = send
        self.answers = Answers()
        self.waiting: list[Waiting] = []
        self.pushed: dict[int, Pushed] = {}  # seq in the journal of jobs
        self.put_jobs: Callable[[list[dict[str, Any]], str], int] = lambda jobs, by: -1
        self._loads = loads_of(site)
        self.counts = {"requests": 0, "refused": 0, "malformed": 0, "dropped": 0, "commands": 0, "failed": 0}
        self.health_more: Callable[[], dict[str, Any]] = dict
        self.recordings: Path | None = None  # where the recorder writes; else recordings_lack says why nobody does
        self.recordings_lack = ""
        self._index = {name: i for i, name in enumerate(records.names)}
        self._describe = {
            **msgspec.to_builtins(site),
            "reasons": list(image.REASONS_BY_NUMBER),
            "modes": list(image.MODES_BY_NUMBER),
            "qualities": list(messages.QUALITIES),
            "wire_version": messages.WIRE_VERSION,
            "ops": messages.OPS,
            "codes": messages.CODES,
        }

    # ---- one message ----

    def serve(self, route: Any, peer: Peer, data: bytes | memoryview) -> None:
        """Answer one message, now or when the core has acted; silent where the peer floods."""
        now_ns = time.monotonic_ns()
        if not peer.messages.take(now_ns):
            self.counts["dropped"] += 1
            return
        self.counts["requests"] += 1
        request: Any = None
        try:
            request = messages.parse(data)
            self._admit(peer, request, now_ns)
            answer = self._answer(route, peer, request, now_ns)
        except Refused as why:
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

    def _failure(self, request: Any, why: Exception) -> bytes:
        """The answer where the gateway itself failed; the log has the place, the journal the fact."""
        traceback.print_exception(why)
        said = f"{type(why).__name__}: {why}"[: messages.TEXT_MAX]
        self.counts["failed"] += 1
        self.desk.news.append(("gateway", "internal", said))
        return self._refusal(request, Refused("internal", said))

    def _admit(self, peer: Peer, request: Any, now_ns: int) -> None:
        op = _op(request)
        if now_ns < peer.locked_until_ns:
            raise Refused(
                "locked",
                "locked after too many requests that were not allowed",
                expires_ms=_ms(peer.locked_until_ns - now_ns),
            )
        if not peer.may(op):
            peer.forbidden += 1
            if peer.forbidden >= 10:
                peer.forbidden = 0
                peer.locked_until_ns = now_ns + 60 * 10**9
                self.desk.news.append(("access", "locked", f"{peer.name}: ten requests that its role does not permit"))
            raise Refused("not-allowed", f"{op} needs the role {messages.OPS[op]}, {peer.name} has {peer.role}")
        bucket = peer.replays if op == "replay" else peer.reads if op in messages.READS else peer.commands
        if not bucket.take(now_ns):
            raise Refused("busy", f"more than {bucket.per_s:.0f} {op} a second", expires_ms=int(1000 / bucket.per_s))

    def _answer(self, route: Any, peer: Peer, request: Any, now_ns: int) -> bytes | None:
        op = _op(request)
        if op in messages.READS:
            return self._read(route, request)
        known, kept = self.answers.find(peer.name, request.id, now_ns)
        if known:
            if kept is None:
                everyone: list[Waiting | Pushed] = [*self.waiting, *self.pushed.values()]
                for waiting in everyone:
                    if waiting.request.id == request.id and waiting.peer.name == peer.name:
                        waiting.more.append(route)
            return kept
        peer.user = request.user or ""
        if op == "note":
            self.desk.news.append(("note", request.name, f"{peer.who}: {request.detail}"))
            return self._done(peer, request, {}, now_ns)
        if op == "jobs":
            self._jobs(route, peer, request, now_ns)
            return None
        if op == "record":
            if self.recordings is None:
                raise Refused("unavailable", self.recordings_lack)
            self.desk.news.append(("record", "requested", f"{peer.who}: {request.cause}"))
            return self._done(peer, request, {"record": {"folder": str(self.recordings)}}, now_ns)
        self._command_checks(request, now_ns)
        self.counts["commands"] += 1
        if op == "lease":
            return self._done(peer, request, self.desk.take_lease(request, peer, now_ns), now_ns)
        orders: list[Order]
        if op == "setpoint":
            orders = [self.desk.setpoint(request, peer, now_ns)]
        elif op == "limit":
            orders = self.desk.limit(request, peer, now_ns)
        elif op == "schedule":
            orders = [self.desk.schedule(request, peer, now_ns, self.records.clock.utc_ns(now_ns))]
        elif op == "policy":
            orders = [self.desk.policy(request, peer, now_ns)]
        elif op == "mode":
            orders = [self.desk.mode(request, peer, now_ns)]
        else:
            orders = [self.desk.ack(peer, now_ns)]
        self.answers.keep(peer.name, request.id, now_ns, None)
        self.waiting.append(Waiting(route, peer, request, orders, now_ns + APPLY_NS))
        return None

    def _jobs(self, route: Any, peer: Peer, request: messages.Jobs, now_ns: int) -> None:
        """Journal job records; `journaled` answers. No core is needed for that."""
        if self.journal.error:
            raise Refused("unavailable", f"the journal cannot be written: {self.journal.error}"[: messages.TEXT_MAX])
        good, refused = sort_jobs(request.jobs, self._loads, self.records.clock.utc_ns(now_ns) // 10**9)
        if not good:
            raise Refused("invalid-field", refused[0], refused=refused)
        self.answers.keep(peer.name, request.id, now_ns, None)
        seq = self.put_jobs(good, peer.who)
        self.pushed[seq] = Pushed(route, peer, request, refused, len(good))

    def journaled(self, seq: int) -> None:
        """Answer the push whose records are on disk now."""
        pushed = self.pushed.pop(seq, None)
        if pushed is None:
            return  # of the gateway before this one
        more: dict[str, Any] = {"accepted": pushed.accepted}
        if pushed.refused:
            more["refused"] = pushed.refused
        answer = self._done(pushed.peer, pushed.request, more, time.monotonic_ns())
        for route in (pushed.route, *pushed.more):
            self.send(route, answer)

    def _command_checks(self, request: Any, now_ns: int) -> None:
        limit = request.not_after_t_ns
        if limit is not None and now_ns > limit:
            raise Refused("late", f"arrived {(now_ns - limit) / 1e6:.1f} ms behind its not_after_t_ns")
        if limit is not None and limit - now_ns > messages.NOT_AFTER_MAX_NS:
            raise Refused("late", f"asks to stay valid for more than {messages.NOT_AFTER_MAX_NS // 10**9} s")
        if not self.memory.running:
            raise Refused("core-down", "the core does not run")

    # ---- answers ----

    def _head(self, request: Any, status: str) -> dict[str, Any]:
        return {
            "v": messages.WIRE_VERSION,
            "id": request.id,
            "op": _op(request),
            "status": status,
            "boot": self.records.boot,
            "cycle": self.memory.cycle,
            "t_ns": time.monotonic_ns(),
        }

    def _done(self, peer: Peer, request: Any, more: dict[str, Any], now_ns: int) -> bytes:
        answer = messages.encode({**self._head(request, "applied"), **more})
        self.answers.keep(peer.name, request.id, now_ns, answer)
        return answer

    def _refusal(self, request: Any, why: Refused) -> bytes:
        found = why.more.pop("request", None)
        asked = found if isinstance(found, dict) else {}
        return messages.encode(
            {
                "v": messages.WIRE_VERSION,
                "id": request.id if request is not None else _text(asked.get("id"))[:64],
                "op": _op(request) if request is not None else _text(asked.get("op"))[:16],
                "status": "refused",
                "boot": self.records.boot,
                "cycle": self.memory.cycle,
                "t_ns": time.monotonic_ns(),
                "code": why.code,
                "text": why.text,
                **why.more,
            }
        )

    def step(self, now_ns: int) -> None:
        """Answer the commands that the core has taken over since, and those that it has not in time."""
        if not self.waiting:
            return
        left = []
        for waiting in self.waiting:
            if not self._settled(waiting, now_ns):
                left.append(waiting)
        self.waiting = left

    def _settled(self, waiting: Waiting, now_ns: int) -> bool:
        taken = all(order.seq == 0 or self._applied(order.kind) >= order.seq for order in waiting.orders)
        if taken and waiting.seen_cycle < 0:
            waiting.seen_cycle = self.memory.cycle
        # The image of the cycle that took the order over is published at that cycle's end, and one later for certain.
        if waiting.seen_cycle >= 0 and self.memory.cycle > waiting.seen_cycle:
            answer = messages.encode(self._outcome(waiting))
        elif now_ns > waiting.deadline_ns:
            self.counts["refused"] += 1
            answer = self._refusal(
                waiting.request, Refused("not-applied", f"the core did not take it over within {APPLY_NS // 10**6} ms")
            )
        else:
            return False
        self.answers.keep(waiting.peer.name, waiting.request.id, now_ns, answer)
        for route in (waiting.route, *waiting.more):
            self.send(route, answer)
        return True

    def _applied(self, kind: int) -> int:
        return self.memory.plan_applied if kind == PLAN else self.memory.applied(kind)

    def _outcome(self, waiting: Waiting) -> dict[str, Any]:
        order = waiting.orders[0]
        answer = self._head(waiting.request, "applied")
        if order.kind in (SETPOINT, MANUAL) and order.wanted is not None:
            applied_w, by = self._clamp(order.wanted, ("run", "derated") if order.kind == SETPOINT else ("manual",))
            answer["applied_w"] = applied_w
            if abs(applied_w - order.wanted) > OWN_W:
                answer.update(status="clamped", by=by, text=f"{order.wanted:.0f} W asked, {applied_w:.0f} W by {by}")
            held = self.desk.lease
            if order.kind == MANUAL:
                if self.desk.manual is not None:
                    answer["expires_ms"] = _ms(self.desk.manual.until_ns - time.monotonic_ns())
            elif held is not None:
                answer["expires_ms"] = _ms(held.expires_ns - time.monotonic_ns())
                answer["next_seq"] = held.seq + 1
        elif order.kind in (IMPORT, EXPORT):
            clamped = [one for one in waiting.orders if one.clamped_w is not None]
            shown = clamped[0] if clamped else order
            answer["applied_w"] = shown.clamped_w if shown.clamped_w is not None else shown.wanted
            if clamped:
                answer.update(
                    status="clamped",
                    by=shown.by,
                    text=f"{shown.wanted:.0f} W asked, {shown.clamped_w:.0f} W by {shown.by}",
                )
        elif order.kind in (ACK, MODE):
            answer["text"] = f"mode {self.mode()}"
        elif order.by:
            answer["text"] = order.by
        return answer

    def _clamp(self, wanted: float, modes: tuple[str, ...]) -> tuple[float, str]:
        """What the core can make of a setpoint now, and the reason that binds."""
        now = self.values(("site.corridor_lo_w", "site.corridor_hi_w", "site.envelope_lo_w", "site.envelope_hi_w"))
        mode = self.mode()
        if mode not in modes:
            return 0.0, mode
        lo_w, hi_w = now["site.corridor_lo_w"], now["site.corridor_hi_w"]
        if lo_w is None or hi_w is None:
            return 0.0, "unknown"
        applied = min(max(wanted, lo_w), hi_w)
        envelope = now["site.envelope_lo_w"], now["site.envelope_hi_w"]
        if None not in envelope and applied in envelope:
            return applied, "envelope"
        return applied, self.reason("site.reason")

    # ---- reads ----

    def _read(self, route: Any, request: Any) -> bytes | None:
        op = _op(request)
        head = self._head(request, "ok")
        if op == "describe":
            return messages.encode({**head, "site": self._describe})
        if op == "get":
            return messages.encode({**head, **self._get(request.points, request.ages)})
        if op == "why":
            return messages.encode({**head, "why": self.why()})
        if op == "health":
            more = {"histograms": self.histograms()} if request.histograms else {}
            return messages.encode({**head, "health": {**self.health(), **more}})
        return self._replay(route, request, head)

    def _get(self, names: list[str], ages: bool) -> dict[str, Any]:
        picture = self.memory.read_image()
        if picture is None:
            raise Refused("core-down", "the core ended in the middle of a cycle")
        unknown = [name for name in names if name not in self._index]
        if unknown:
            raise Refused("unknown-point", f"{unknown[0][:64]!r} is no point of this site"[: messages.TEXT_MAX])
        found: dict[str, Any] = {}
        if names:
            values, qualities = picture.values, picture.qualities
            found["points"] = {
                name: (messages.number(values[i], qualities[i]), qualities[i])
                for name in names
                for i in (self._index[name],)
            }
        else:
            found["points"] = self.records.points(picture)
        if ages:
            now_ns, times = time.monotonic_ns(), picture.times_ns
            found["ages_ms"] = {
                name: max(0.0, (now_ns - times[i]) / 1e6) if times[i] else None
                for name in found["points"]
                for i in (self._index[name],)
            }
        return found

    def values(self, names: tuple[str, ...]) -> dict[str, float | None]:
        """Present values by name, None where not good."""
        picture = self.memory.read_image()
        if picture is None:
            return dict.fromkeys(names)
        return {
            name: messages.number(point.value, point.quality) if i is not None else None
            for name in names
            for i in (self._index.get(name),)
            for point in (picture[i] if i is not None else picture[0],)
        }

    def reason(self, point: str) -> str:
        value = self.values((point,))[point]
        table = image.REASONS_BY_NUMBER
        return table[int(value)] if value is not None and 0 <= value < len(table) else "unknown"

    def mode(self) -> str:
        value = self.values(("site.mode",))["site.mode"]
        table = image.MODES_BY_NUMBER
        return table[int(value)] if value is not None and 0 <= value < len(table) else "unknown"

    def why(self) -> dict[str, Any]:
        """Why the setpoint is what it is: the binding reason, the corridor, the envelope, faults, the lease."""
        names = (
            "site.setpoint_w",
            "site.request_w",
            "site.grid_w",
            "site.load_w",
            "site.ess_w",
            "site.corridor_lo_w",
            "site.corridor_hi_w",
            "site.envelope_lo_w",
            "site.envelope_hi_w",
            "site.grid_limit_w",
            "site.shortfall_w",
        )
        now = self.values(names)
        told: dict[str, Any] = {name.partition(".")[2]: value for name, value in now.items()}
        told["mode"] = self.mode()
        told["reason"] = self.reason("site.reason")
        told["preference"] = self.reason("site.preference")
        told["faults"] = self._bits("fault_bits")
        told["latches"] = self._bits("latch_bits")
        told["lease"] = self.lease()
        told["stopped"] = self.desk.stopped
        told["policies"] = {name: value for name, (value, _) in self.desk.policies.items()}
        told["unenforced"] = self._unenforced()
        told["hunting"] = int(self.values(("site.hunting",))["site.hunting"] or 0)
        manual = self.desk.manual
        if manual is not None:
            told["manual"] = {"peer": manual.peer, "left_ms": max(0, _ms(manual.until_ns - time.monotonic_ns()))}
        return told

    def _unenforced(self) -> list[str]:
        """Configured limits that are not being enforced."""
        bits = int(self.values(("site.unenforced_bits",))["site.unenforced_bits"] or 0)
        return [name for i, name in enumerate(image.REASONS_BY_NUMBER) if bits >> i & 1]

    def _bits(self, what: str) -> list[str]:
        found = []
        for unit in range(self.memory.n_units):
            low, high = (
                self.values((f"unit{unit}.{what}_{half}",))[f"unit{unit}.{what}_{half}"] for half in ("lo", "hi")
            )
            bits = int(low or 0) | int(high or 0) << 32
            found += [
                f"unit{unit} {self.records.faults.get(bit, f'fault {bit}')}" for bit in range(64) if bits >> bit & 1
            ]
        return found

    def latched(self) -> bool:
        """Tell whether a fault is latched in any unit."""
        return bool(self._bits("latch_bits"))

    def lease(self) -> dict[str, Any] | None:
        held = self.desk.lease
        if held is None:
            return None
        return {
            "holder": held.peer,
            "priority": held.priority,
            "expires_ms": _ms(held.expires_ns - time.monotonic_ns()),
            "setpoint_w": held.setpoint_w,
        }

    def health(self) -> dict[str, Any]:
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
            "mode": self.mode(),
            "loop": self.memory.loop_stats(),
            "buses": self.memory.buses(),
            "lease": self.lease(),
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

    def histograms(self) -> dict[str, Any]:
        """The loop's histograms, ns."""
        return {
            name: [[edge, count] for edge, count in self.memory.histogram(name).buckets]
            for name in ("lateness", "work", *shared.PHASE_NAMES)
        }

    def _replay(self, route: Any, request: Any, head: dict[str, Any]) -> bytes | None:
        journal = self.journal.stream(request.stream)
        boot = bytes.fromhex(request.boot) if request.boot else None

        def job() -> bytes:
            try:
                records, end = journal.after(boot, request.seq, request.count)
            except (KeyError, FileNotFoundError):
                raise Refused(
                    "gone", f"boot {request.boot} is not held any more; ask without boot for the oldest"
                ) from None
            return replay_bytes(head, records, end)

        if not self.journal.ask((route, request), job):
            raise Refused("busy", "too many replays at once", expires_ms=100)
        return None

    def replayed(self, tag: Any, result: Any) -> None:
        """Send what the reading thread has found."""
        route, request = tag
        if isinstance(result, Refused):
            result = self._refusal(request, result)
        elif isinstance(result, Exception):
            result = self._failure(request, result)
        self.send(route, result)


EARLIEST_JOB_S = 1_577_836_800  # 2020-01-01: before, the clock was not set
LONGEST_JOB_S = 366 * 86_400


def loads_of(site: Description) -> frozenset[str]:
    """The IT loads that a job may name: metered ones, or the one that is what the other meters leave."""
    metered = {node.device for node in site.nodes if node.role == "it"}
    return frozenset(metered or {"it"})


def sort_jobs(
    jobs: list[messages.JobRecord], loads: frozenset[str], utc_s: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """(records for the journal, what is refused and why). utc_s : now, by the device's clock."""
    good: list[dict[str, Any]] = []
    refused: list[str] = []
    for number, job in enumerate(jobs):
        why = ""
        if job.end_utc_s < job.start_utc_s:
            why = f"ends {job.start_utc_s - job.end_utc_s} s before it starts"
        elif job.end_utc_s == job.start_utc_s:
            why = "lasts 0 s"
        elif job.start_utc_s < EARLIEST_JOB_S:
            why = f"starts at {job.start_utc_s}, before 2020: the clock was not set"
        elif job.end_utc_s - job.start_utc_s > LONGEST_JOB_S:
            why = f"lasts {(job.end_utc_s - job.start_utc_s) // 86_400} days"
        elif utc_s > EARLIEST_JOB_S and job.end_utc_s > utc_s + 86_400:
            why = f"ends {(job.end_utc_s - utc_s) // 86_400} days from now; push a job after its end"
        elif job.node and job.node not in loads:
            why = f"node {job.node!r} is no IT load of this site; known: {', '.join(sorted(loads))}"
        if why:
            refused.append(f"jobs[{number}], {job.job[:60]}: {why}"[: messages.TEXT_MAX])
        else:
            good.append(msgspec.to_builtins(job))
    return good, refused


def _op(request: Any) -> str:
    return str(request.__struct_config__.tag)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _ms(ns: int) -> int:
    return max(0, ns // 1_000_000)
