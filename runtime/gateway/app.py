"""The gateway's main thread: rings out, requests in, nothing that can block."""

import contextlib
import math
import os
import resource
import time
from pathlib import Path

import zmq

from tidegate.ext.abi import shared
from tidegate.hal.description import Description
from tidegate.runtime.api import messages
from tidegate.runtime.api.curve_keys import Roles
from tidegate.runtime.gateway import grid_operator
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.grid_operator import GridOperator
from tidegate.runtime.gateway.guard_events import Guarded
from tidegate.runtime.gateway.journal_writer import JournalWriter
from tidegate.runtime.gateway.lease_file import Ordered, OrdersFile
from tidegate.runtime.gateway.orders_held import EXPORT, IMPORT, STOP
from tidegate.runtime.gateway.peers import Bucket, Peer, Peers, services_here
from tidegate.runtime.gateway.plan_table import planner_of
from tidegate.runtime.gateway.policies_held import site_policies
from tidegate.runtime.gateway.records import Records, loop_of, utc_of
from tidegate.runtime.gateway.requests import Replayed, Server
from tidegate.runtime.gateway.retention import Retention
from tidegate.runtime.gateway.sockets import ASK, SAID, Route, Transports, property_of
from tidegate.runtime.gateway.stops_held import StopsHeld
from tidegate.runtime.recording import availability
from tidegate.runtime.state.beat import Beat
from tidegate.runtime.state.former import buses_of, journal_says
from tidegate.runtime.state.held import GRID_OPERATOR, held_dir
from tidegate.runtime.state.journal import Journal, Record
from tidegate.runtime.state.latches import Latched, LatchFile, told
from tidegate.runtime.state.stop_file import StopFile, Stops

TURN_MESSAGES = 32  # of one socket before the other work has its turn
CPU_SHARE = 0.2  # of one core that requests may take; the rest waits in the kernel, peer by peer
CPU_SHARE_REMOTE = 0.1  # the same of other machines together, so that this one is heard beside them
ARM_EVERY_NS = 1_000_000_000
HEAD_EVERY_NS = 1_000_000_000
STATS_EVERY_NS = 1_000_000_000
STOPS_EVERY_NS = 1_000_000_000  # a disk that refuses is asked again after so long
NOISE_PER_S = 10.0  # events of one kind that anybody can cause by asking
MS = 1_000_000


class Gateway:
    """One gateway beside one core.

    site : the program's description. memory : the core's shared memory. state : folder of the journal.
    runtime : folder of the sockets.
    """

    def __init__(self, site: Description, memory: shared.Shared, runtime: Path, state: Path) -> None:
        options = self.options = site.gateway
        self.memory = memory
        self.runtime = runtime
        self.boot = memory.boot_id
        self.records = Records(site, memory)
        self._billing_said = ""
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        folder = journal_dir(state)
        journals = {name: Journal(folder, name) for name in ("meter", "event", "job")}
        retention = Retention(
            journals["meter"],
            journals["event"],
            Journal(folder, "totals"),
            samples_bytes=options.journal_mb_max << 20,
            samples_age_ns=options.journal_days_max * 86_400 * 10**9,
            job=journals["job"],
        )
        self.journal: JournalWriter[Replayed] = JournalWriter(journals, self.wake, retention)
        held = held_dir(state)
        self._stop_file = StopFile(held, runtime)
        stops, self._stops_damaged = self._stop_file.read(lambda: journal_says(folder, "stop"))
        self.desk = Desk(
            memory,
            site_import_w_max=_limit(site.limits.connection_import_w_max),
            site_export_w_max=_limit(site.limits.connection_export_w_max),
            stops=StopsHeld(stops, self._keep_stops),
            by_signal=self._by_signal,
            keep_lease=lambda held: self._keep_orders(),
            keep_orders=self._keep_orders,
            site_policies=site_policies(site),
            put_plan=self._put_plan,
        )
        self._orders_file = OrdersFile(runtime / "lease", self.boot)
        self.planner = planner_of(site, memory, state)
        self.latches = LatchFile(held, [unit.name for unit in site.units], runtime, buses_of(site))
        self._latches_said = ""
        self._guarded = Guarded(memory.guard())
        now_ns = time.monotonic_ns()
        if stops.stopped:
            self.desk.stop(now_ns)
        self.desk.stops.keep()  # there from the first start on, so that one that is gone is missed
        ordered = self._orders_file.read()
        self.desk.know(ordered.limits, ordered.policies, now_ns)
        policies = range(shared.ORDER_POLICY_FIRST, shared.ORDER_POLICY_FIRST + len(shared.POLICY_NAMES_BY_NUMBER))
        for kind in (IMPORT, EXPORT, *policies):
            order = memory.order(kind)
            if order is not None:
                self.desk.take_over(kind, order.value, order.expires_t_ns, now_ns)
        if ordered.lease is not None:
            self.desk.resume(ordered.lease, now_ns)
        self.desk.plan = self.planner.take_over(now_ns, self.records.clock.utc_ns(now_ns))
        if self.desk.plan:  # whose it is nobody knows any more: then nobody below the highest role replaces it
            self.desk.plan_owner = ordered.plan_owner or "before restart"
            self.desk.plan_role = ordered.plan_role if ordered.plan_owner else "maintain"
            self.desk.plan_rank = ordered.plan_rank
        self.records.spans = self.planner.names
        self._put_plan()
        self.server = Server(site, memory, self.records, self.journal, self.desk, self._send)
        self.server.health_more = self._health
        self.grid_operator = self.server.grid_operator = self.server.site.grid_operator = GridOperator(
            memory, held / GRID_OPERATOR, self._told_grid_operator
        )
        self._operator_said = ""
        self.server.put_jobs = self._put_jobs
        self.server.shelf.keep_in(held)
        self.server.publish = self._publish
        self._job_next = journals["job"].last.get(self.boot, (-1, -1))[0] + 1
        self.server.causes.state = state
        self.server.recordings_lack = availability.missing(site)
        self.server.recordings = None if self.server.recordings_lack else state / "recordings"
        self.peers = Peers(os.geteuid(), options.local_role, services_here(os.geteuid()))
        self.autostart = options.autostart
        self.transports = Transports(options, runtime, state)

        meter, event = journals["meter"].last, journals["event"].last
        self.meter_next = meter.get(self.boot, (-1, -1))[0] + 1
        self.event_seq, self.event_next = (number + 1 for number in event.get(self.boot, (-1, -1)))
        # Where the disk gives nothing, numbers of this start of the core may stand that we do not know.
        self.event_seq += journals["event"].records_lost_max
        self._job_next += journals["job"].records_lost_max
        self.snapshot_next = memory.snapshot_head
        self.durable = {"meter": self.meter_next - 1, "event": self.event_seq - 1}
        self.snapshots_sent = self.snapshots_dropped = 0
        self.unroutable = 0
        self.stopping = False
        self._was_running = False
        self._arm_ns = self._head_ns = self._stats_ns = 0
        self._loop: dict[str, object] = {}
        self._roles_said = self._remote_said = ""
        # What anybody can cause without a right to order anything, each kind with a bucket of its own. Orders, leases,
        # faults, latches and what befalls core, gateway and journal have none: an audit trail has no gaps.
        self._noise = {kind: Bucket(NOISE_PER_S, 4 * NOISE_PER_S) for kind in ("note", "access", "gateway", "record")}
        self._suppressed = dict.fromkeys(self._noise, 0)
        self._disk_said = ""
        self._cpu, self._cpu_remote = Bucket(CPU_SHARE, 0.05), Bucket(CPU_SHARE_REMOTE, 0.05)
        self._tick_ms = 20
        self._damages = [f"{name}: {damage}" for name, journal in journals.items() for damage in journal.damages]

    def _keep_stops(self, stops: Stops) -> str:
        """A site that a person stopped stays stopped over a restart of everything, until a person lifts it."""
        self._stops_again_ns = time.monotonic_ns() + STOPS_EVERY_NS
        return "" if self._stop_file.write(stops) else self._stop_file.error

    def _by_signal(self) -> bool:
        order = self.memory.order(STOP)
        return order is not None and order.expires_t_ns > time.monotonic_ns()

    def _stops(self, now_ns: int) -> None:
        """Know of a stop by signal; try again to keep what the disk refused."""
        held = self.desk.stops
        if held.stops.stop is None and self._by_signal():
            held.stopped_by_signal()
            self.desk.stop(now_ns)
            self._emit("order", "stop", "by a signal")
        if held.not_kept and now_ns >= self._stops_again_ns:
            held.keep()
            if not held.not_kept:
                self._emit("order", "kept", "the disk takes the stop again")

    def _keep_orders(self) -> None:
        """A restart of the gateway ends no lease before its time and forgets no owner, while that can be kept."""
        desk = self.desk
        ordered = Ordered(
            lease=desk.lease,
            limits=desk.limits,
            policies=desk.policies.held,
            plan_owner=desk.plan_owner,
            plan_role=desk.plan_role,
            plan_rank=desk.plan_rank,
        )
        try:
            self._orders_file.write(ordered)
        except OSError as why:
            said = f"{self._orders_file.path}: {why.strerror}; it ends if the gateway restarts"
            self._emit("lease", "not kept", said)

    def _told_grid_operator(self, name: str, detail: str, proof: dict[str, object]) -> None:
        self._emit("grid-operator", name, detail, proof=proof)

    # ---- the loop ----

    def run(self) -> None:
        """Serve until `stopping` is set."""
        poller = zmq.Poller()
        poller.register(self.wake, zmq.POLLIN)
        self.journal.start()
        for damage in self._damages:
            self._emit("journal", "damaged", damage)
        self._emit("gateway", "started", f"pid {os.getpid()}")
        if self._stops_damaged:
            self._emit("order", "lost", f"which stop was in force is not known: {self._stops_damaged}")
        now_ns = time.monotonic_ns()
        self.grid_operator.resume(now_ns, self.records.clock.utc_ns(now_ns))
        if self._orders_file.lost:
            self._emit("lease", "lost", self._orders_file.lost)
        if self.event_next == 0 and self.memory.latch_changes == 0:  # since then only the core's own events tell
            for line in told(self.latches.units, [Latched(*one) for one in zip(*self.memory.latches[1:], strict=True)]):
                self._emit("latches", "restored", line)
        listening: list[zmq.Socket[bytes]] = []
        next_tick = 0
        beat = Beat()
        while not self.stopping:
            beat.give()
            now_ns = time.monotonic_ns()
            door = self.transports.door
            wanted = [self.transports.local.api] if self._cpu.take(now_ns, 0.0) else []
            if door is not None and self._cpu_remote.take(now_ns, 0.0):
                wanted.append(door)
            if wanted != listening:
                for api in listening:
                    poller.unregister(api)
                for api in wanted:
                    poller.register(api, zmq.POLLIN)
                listening = wanted
            wait_ms = max(0, (next_tick - now_ns + MS - 1) // MS)
            if self.server.waiting:
                wait_ms = min(wait_ms, 1)
            ready = dict(poller.poll(wait_ms))
            if self.wake in ready:
                self._durable()
            if self.transports.local.api in ready:
                self._requests(self.transports.local.api, self._cpu)
            if door is not None and door in ready:
                self._requests(door, self._cpu_remote)
            now_ns = time.monotonic_ns()
            if self.server.waiting:
                self.server.step(now_ns)
            if now_ns >= next_tick:
                next_tick = now_ns + self._tick_ms * MS
                self._tick(now_ns)
        self._end()

    def _requests(self, api: zmq.Socket[bytes], cpu: Bucket) -> None:
        began = time.thread_time()
        for _ in range(TURN_MESSAGES):
            try:
                frames = api.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                break
            if api is self.transports.door:
                self._from_outside(api, frames)
            else:
                self._request(frames)
        cpu.spend(time.thread_time() - began)

    def _request(self, frames: list[zmq.Frame]) -> None:
        # DEALER sends one frame, REQ an empty one before it. Anything else is nobody we know.
        envelope, payload = frames[:-1], frames[-1]
        if (len(frames) == 3 and len(frames[1].buffer) == 0) or len(frames) == 2:
            peer = self.peers.local(property_of(payload, "Peer-Address"))
            route = Route(self.transports.local.api, [frame.bytes for frame in envelope])
            self.server.serve(route, peer, payload.bytes)
        else:
            self.server.counts["malformed"] += 1

    def _from_outside(self, door: zmq.Socket[bytes], frames: list[zmq.Frame]) -> None:
        """What the process for other machines passes on: a request and whose it is, or something about itself."""
        words = [frame.bytes for frame in frames]
        if len(words) < 3 or not self.transports.trusted(frames[-1]):
            self.server.counts["malformed"] += 1
        elif words[1] == SAID:
            self._door_says(words[-1])
        elif words[1] == ASK and 5 <= len(words) <= 6:
            try:
                peer = self._remote_peer(words[-2].decode(errors="replace"))
            except LookupError:
                self.server.counts["dropped"] += 1
                return
            self.server.serve(Route(door, [words[0], *words[2:-2]]), peer, words[-1])
        else:
            self.server.counts["malformed"] += 1

    def _remote_peer(self, name: str) -> Peer:
        """Who asks from another machine. Raises LookupError for a key that has lost its rights since it connected."""
        if self.options.plain_loopback:
            return self.peers.plain(name, self.options.local_role)
        granted = self.transports.roles.named(name) if self.transports.roles is not None else None
        if granted is None:
            raise LookupError("revoked")
        return self.peers.keyed(granted.name, granted.role)

    def _door_says(self, data: bytes) -> None:
        try:
            said = messages.decode(data)
        except messages.Refused:  # whatever has become of that process, this one goes on
            self.server.counts["malformed"] += 1
            return
        if "problem" in said:
            self.transports.heard(said, time.monotonic_ns())
        else:
            self._emit("access", str(said.get("name", ""))[:32], str(said.get("detail", "")))

    def _send(self, route: object, answer: bytes) -> None:
        assert isinstance(route, Route)
        self._keep_latches()
        try:
            route.api.send_multipart([*route.envelope, answer], zmq.DONTWAIT)
        except zmq.ZMQError:
            self.unroutable += 1  # gone, or does not read

    # ---- rings to journal to stream ----

    def _tick(self, now_ns: int) -> None:
        running = self.memory.running
        self.server.causes.look()
        self._events()
        self._meters()
        self._snapshots(now_ns)
        self.desk.step(now_ns, self.records.clock.utc_ns(now_ns))
        self._stops(now_ns)
        self.grid_operator.step(now_ns, self.records.clock.utc_ns(now_ns))
        if self.grid_operator.problem != self._operator_said:
            self._operator_said = self.grid_operator.problem
            if self._operator_said:
                self._emit("grid-operator", "not kept", self._operator_said)
        self._plan(now_ns)
        self._emit_orders()
        self._emit_guard(now_ns)
        if self.transports.roles is not None:
            self._roles(now_ns, self.transports.roles)
        for said in self.transports.watch(now_ns):
            self._emit("access", "cut", said)
        if self.transports.problem != self._remote_said:
            self._remote_said = self.transports.problem
            self._emit("access", "remote", self._remote_said or "other machines are served again")
        if running and self.autostart and now_ns - self._arm_ns >= ARM_EVERY_NS:
            self._arm_ns = now_ns
            if not self.desk.stopped and self.server.site.units_to_arm():
                self.desk.arm(now_ns)
        if now_ns - self._head_ns >= HEAD_EVERY_NS:
            self._head_ns = now_ns
            self._publish(
                "head",
                messages.encode(
                    {
                        "v": messages.WIRE_VERSION,
                        "kind": "head",
                        "site": self.records.site,
                        "boot": self.records.boot,
                        "meter": self.durable["meter"],
                        "event": self.durable["event"],
                        "snapshots_dropped": self.snapshots_dropped,
                        "journal_error": self.journal.error,
                    }
                ),
            )
            self._emit_disk()
            self._emit_suppressed()
        if self._was_running and not running:
            self._emit("core", "ended", "the core has stopped; setpoint 0")
        self._was_running = running

    def _roles(self, now_ns: int, roles: Roles) -> None:
        """End what was ordered by whoever lost a right; the process for other machines cuts its connections."""
        roles.reload(now_ns)
        for name in roles.take_lost():
            self.desk.forget(f"key:{name}", now_ns)
        if roles.problem != self._roles_said:
            self._roles_said = roles.problem
            if roles.problem:
                self._emit("access", "closed", f"nobody from outside gets in: {roles.problem}")

    def _put_plan(self) -> int:
        now_ns = time.monotonic_ns()
        return self.planner.put(self.desk.plan, now_ns, self.records.clock.utc_ns(now_ns))

    def _plan(self, now_ns: int) -> None:
        """Keep the core's plan ahead of the clock, and what the billing period has paid for on disk."""
        billing = self.planner.billing
        peak_w = self.server.site.values(("site.demand_peak_w",))["site.demand_peak_w"] if billing else None
        said = billing.problem if billing else ""
        try:
            self.planner.step(self.desk.plan, peak_w, now_ns, self.records.clock.utc_ns(now_ns))
        except OSError as why:
            said = f"{why.filename}: {why.strerror}"
        if said and said != self._billing_said:
            self._emit("billing", "not kept", f"{said}; after a restart the ratchet begins anew")
        self._billing_said = said

    def _meters(self) -> None:
        while True:
            try:
                picture = self.memory.next_meter(self.meter_next)
            except shared.Overwritten as why:
                oldest = max(why.oldest, self.meter_next + 1)
                self._emit(
                    "journal",
                    "gap",
                    f"meter records {self.meter_next} to {oldest - 1} were overwritten before they were read",
                )
                self.meter_next = oldest
                continue
            if picture is None:
                return
            record = self.records.meter(picture)
            self.journal.put(
                "meter", Record(self.boot, picture.number, utc_of(record), picture.number, messages.encode(record))
            )
            if self.grid_operator.held is not None:
                rows = zip(self.records.names, picture.values, picture.qualities, strict=True)
                points = {name: messages.number(w, q) for name, w, q in rows if name in grid_operator.POINTS}
                self.grid_operator.measure(points, utc_of(record))
            self.meter_next += 1

    def _events(self) -> None:
        while True:
            try:
                event = self.memory.next_event(self.event_next)
            except shared.Overwritten as why:
                oldest = max(why.oldest, self.event_next + 1)
                self._emit(
                    "journal", "gap", f"events {self.event_next} to {oldest - 1} were overwritten before they were read"
                )
                self.event_next = oldest
                continue
            if event is None:
                return
            self._keep_latches()  # the journal hears of it later, too
            self._put_event(self.records.event(self.event_seq, event), self.event_next)
            self.event_next += 1

    def _keep_latches(self) -> None:
        """Latches on disk, before anything that could tell of one leaves. Costs one comparison where nothing changed.

        A disk that refuses is said once and does not hold the news back: silence is worse.
        """
        if not self.latches.keep(self.memory):
            if self.latches.error != self._latches_said:
                self._latches_said = self.latches.error
                self._emit("latches", "not-kept", self.latches.error)
        elif self._latches_said:
            self._latches_said = ""
            self._emit("latches", "kept", "the disk takes them again")

    def _emit_guard(self, now_ns: int) -> None:
        for name, detail in self._guarded.step(now_ns, self.memory.guard()):
            self._emit("core", name, detail)

    def _put_event(self, record: dict[str, object], source: int) -> None:
        self.journal.put("event", Record(self.boot, self.event_seq, utc_of(record), source, messages.encode(record)))
        self.event_seq += 1

    def _put_jobs(self, jobs: list[dict[str, object]], by: str, **more: object) -> int:
        """Take pushed job records, or what was said of a meter, into their journal. -> seq."""
        seq, self._job_next = self._job_next, self._job_next + 1
        record = self.records.head("job", seq, self.memory.cycle, time.monotonic_ns())
        record.update(peer=by, jobs=jobs, **more)
        self.journal.put("job", Record(self.boot, seq, utc_of(record), seq, messages.encode(record)))
        return seq

    def _emit(self, event: str, name: str, detail: str, **more: object) -> None:
        """An event of the gateway's own; of what anybody can cause by asking so many a second, the rest counted."""
        bucket = self._noise.get(event)
        if bucket is not None and not bucket.take(time.monotonic_ns()):
            self._suppressed[event] += 1
            return
        self._put_event(self.records.own_event(self.event_seq, event, name, detail, **more), -1)

    def _emit_suppressed(self) -> None:
        for event, count in self._suppressed.items():
            if count:
                self._suppressed[event] = 0
                said = f"{count} events of this kind within a second were suppressed"
                self._put_event(self.records.own_event(self.event_seq, event, "suppressed", said), -1)

    def _emit_orders(self) -> None:
        audit, self.desk.audit = self.desk.audit, []
        for event, name, detail in audit:
            self._emit(event, name, detail)

    def _emit_disk(self) -> None:
        if self.journal.error and not self._disk_said:
            self._emit("journal", "failing", self.journal.error)
        elif self._disk_said and not self.journal.error:
            self._emit("journal", "recovered", f"after: {self._disk_said}; {self.journal.dropped} records lost")
        self._disk_said = self.journal.error

    def _snapshots(self, now_ns: int) -> None:
        head = self.memory.snapshot_head
        if head == self.snapshot_next:
            return
        if now_ns - self._stats_ns >= STATS_EVERY_NS:
            self._stats_ns = now_ns
            self._loop = loop_of(self.memory)
            period_ms = self._snapshot_period_ms(now_ns, head)
            self._tick_ms = int(min(20, max(2, 8 * period_ms)))
        while self.snapshot_next < head:
            try:
                picture = self.memory.next_snapshot(self.snapshot_next)
            except shared.Overwritten as why:
                oldest = max(why.oldest, self.snapshot_next + 1)
                self.snapshots_dropped += oldest - self.snapshot_next
                self.snapshot_next = oldest
                continue
            if picture is None:
                return
            self._publish("snapshot", messages.encode(self.records.snapshot(picture, self._loop)))
            self.snapshot_next += 1
            self.snapshots_sent += 1

    def _snapshot_period_ms(self, now_ns: int, head: int) -> float:
        seen = getattr(self, "_pace", (0, 0))
        self._pace = (now_ns, head)
        count = head - seen[1]
        return (now_ns - seen[0]) / MS / count if seen[0] and count else 100.0

    def _durable(self) -> None:
        """Publish what the disk has."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake)
        while self.journal.done:
            stream, record = self.journal.done.popleft()
            if stream == "job":
                self.server.journaled(record.seq)
                continue
            self.durable[stream] = record.seq
            self._publish(stream, record.payload)
        while self.journal.answers:
            self.server.replayed(self.journal.answers.popleft())

    def _publish(self, topic: str, payload: bytes) -> None:
        self._keep_latches()
        with contextlib.suppress(zmq.ZMQError):
            self.transports.local.stream.send_multipart([topic.encode(), payload], zmq.DONTWAIT)

    def _health(self) -> dict[str, object]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "gateway": {
                "pid": os.getpid(),
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "rss_max_kib": usage.ru_maxrss,
                "snapshots_sent": self.snapshots_sent,
                "snapshots_dropped": self.snapshots_dropped,
                "unroutable": self.unroutable,
                "connections_remote": self.transports.connections,
                "durable": dict(self.durable),
                "autostart": self.autostart,
            }
        }

    def _end(self) -> None:
        """Take over what the core said last, make it durable, and close."""
        self._events()
        self._meters()
        self._emit_guard(time.monotonic_ns())
        self._emit_suppressed()
        self._emit("gateway", "stopped", f"pid {os.getpid()}")
        self.journal.stop()
        self._durable()
        self.transports.close()


def journal_dir(state: Path) -> Path:
    """Make and give the journal's folder; where that fails the journal says what it lacks and control goes on."""
    folder = state / "journal"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o750, exist_ok=True)
    return folder


def _limit(value: float | None) -> float:
    return math.inf if value is None else value
