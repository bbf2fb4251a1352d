"""A whole site in virtual time: the compiled core against the simulated plant, in one thread, from one seed."""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tidegate.ext.abi.copies import Picture
from tidegate.ext.abi.image import REASONS_BY_NUMBER, Quality
from tidegate.ext.abi.shared import EVENT_NAMES, PlanRow, Shared
from tidegate.ext.cycle.loop import Core
from tidegate.ext.sim import world as worlds
from tidegate.ext.sim.floor import floor_energy
from tidegate.hal.gpio_frames import SCHEME, lines, plays
from tidegate.hal.sim.build import Trace, build, energies, reaction_s, steps
from tidegate.hal.sim.contacts import Change, changes

START_NS = 1_000_000_000  # 0 means "never" to the core
NO_CHANGE = 1 << 62  # cycles until an input says something else: never
CHUNK_S = 10.0  # rings and logs are emptied so often; the meter ring holds 256 s, the event ring 1024 events
METER_UNITS = ("Wh", "Ws", "s", "W")


class EventRow(TypedDict):
    """An event of the core, with the fields of the `event` stream."""

    v: int
    kind: str
    cycle: int
    t_ns: int
    event: str
    unit: int
    code: int
    previous: int
    value: float
    limit: float
    changes: int
    lasted_s: float


class Verdict(TypedDict):
    """How well a limit was kept; see docs/simulator.md."""

    limit_w: float
    reaction_s: float
    steps: int
    grid_peak_w: dict[str, float]
    energy_above_limit_wh: dict[str, float]


class VirtualPlant:
    """One compiled site with its plant, run as fast as the machine can; equal seeds give equal bytes.

    blob   : the compiled program with its describe part (`tidegate.config.compile_site` or `program.pack`).
    load   : (t_s, w), IT power as steps; None = the site's constant load_w.
    pv     : (t_s, w).
    seed   : None = the site's.
    overrides   : settings of the site file's [simulation], by key.
    series_every: cycles between two rows of `series()`; None = 0.5 s.
    arm    : acknowledge and arm whenever a unit stands tripped, once a second, as an operator would.
    utc_start_ns: label of the first cycle in meter records.
    Use as a context manager, or call close().
    """

    def __init__(
        self,
        blob: bytes,
        load: Trace | None = None,
        *,
        pv: Trace | None = None,
        seed: int | None = None,
        overrides: Mapping[str, object] | None = None,
        series_every: int | None = None,
        arm: bool = True,
        utc_start_ns: int = 0,
    ) -> None:
        self.built = build(blob, load=load, pv=pv, seed=seed, overrides=overrides)
        self.world = self.built.world
        self.seed = int(self.built.settings.seed)
        self.period_ns = int(self.built.rows["period_ns"])
        self.utc_start_ns = utc_start_ns
        self.wall_s = self.cpu_s = 0.0  # machine time spent in run(), and this thread's share of a processor
        self._load, self._pv = load, pv
        self._arm = arm
        self._shared, self._fd = Shared.memfd("tidegate-virtual")
        self._program = bytes(blob)
        self.core = Core(self._program, self._shared)
        self._points = [(row["name"], row["unit"]) for row in self.built.rows["points"]]
        self._shared.set_head(
            boot_id=hashlib.sha256(b"boot %d" % self.seed).digest()[:16],
            program_sha256=bytes.fromhex(self.built.site.sha256),
            t_start_ns=START_NS,
            utc_offset_ns=utc_start_ns - START_NS,
            n_points=len(self._points),
            n_units=len(self.built.rows["units"]),
            core_pid=0,
        )
        self.world.start(START_NS)
        self.world.connect(self.core, self._program)
        every = series_every or max(1, round(0.5e9 / self.period_ns))
        self.world.keep_series(int(CHUNK_S * 1e9 / self.period_ns / every) + 2, every)
        self._hash = hashlib.sha256()
        self._wire_bytes = 0
        self._series: list[NDArray[np.float64]] = []
        self._meters: list[tuple[int, int, int, NDArray[np.float64], bytes]] = []
        self._events: list[EventRow] = []
        self._next_meter = self._next_event = 0
        self._inputs: Iterator[Change] = iter(())
        for bus in self.built.site.can:
            if self.built.inputs and bus.interface.startswith(SCHEME):
                self._inputs = changes(lines(bus.interface), plays(bus.interface))
        self._input = next(self._inputs, None)

    def __enter__(self) -> VirtualPlant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back; results already taken stay."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---------------------------------------------------------------- running

    def run(self, seconds: float) -> VirtualPlant:
        """Run so many seconds of virtual time, in whole cycles; the GIL is free meanwhile. Returns itself."""
        left = round(seconds * 1e9 / self.period_ns)
        chunk = max(1, round((1.0 if self._arm else CHUNK_S) * 1e9 / self.period_ns))
        since_take = 0
        while left > 0:
            if self._arm and self.world.units_tripped:
                self.world.arm()
            now = min(chunk, left, self._apply_inputs())
            started, started_cpu = time.perf_counter(), time.thread_time()
            self.world.run(now)
            self.wall_s += time.perf_counter() - started
            self.cpu_s += time.thread_time() - started_cpu
            left -= now
            since_take += now
            if since_take * self.period_ns >= CHUNK_S * 1e9 - 1 or left <= 0:
                self._take()
                since_take = 0
        return self

    def _apply_inputs(self) -> int:
        """Let simulated GPIO lines say what they say by now; returns the cycles until the next change, at least 1."""
        elapsed_ns = self.world.t_ns - START_NS
        while self._input is not None and self._input[0] <= elapsed_ns:
            _, number, data = self._input
            self.world.set_frame(self.built.inputs[number], data)
            self._input = next(self._inputs, None)
        if self._input is None:
            return NO_CHANGE
        return max(1, -(-(self._input[0] - elapsed_ns) // self.period_ns))

    def _take(self) -> None:
        wire = self.world.take_wire_log()
        self._wire_bytes += len(wire)
        self._hash.update(wire)
        self._series.append(np.frombuffer(self.world.take_series()).reshape(-1, len(worlds.SERIES)))
        while (picture := self._shared.next_meter(self._next_meter)) is not None:
            values = np.array(picture.values, dtype=np.float64)
            qualities = bytes(picture.qualities)
            self._meters.append((self._next_meter, picture.cycle, picture.t_ns, values, qualities))
            self._hash.update(struct.pack("<QQ", picture.cycle, picture.t_ns) + values.tobytes() + qualities)
            self._next_meter += 1
        while (event := self._shared.next_event(self._next_event)) is not None:
            self._hash.update(struct.pack("<QQIiiiddId", *event[1:]))
            self._events.append(
                {
                    "v": 1,
                    "kind": "event",
                    "cycle": event.cycle,
                    "t_ns": event.t_ns,
                    "event": EVENT_NAMES[event.kind] if event.kind < len(EVENT_NAMES) else str(event.kind),
                    "unit": event.unit,
                    "code": event.code,
                    "previous": event.previous,
                    "value": event.value,
                    "limit": event.limit,
                    "changes": event.changes,
                    "lasted_s": event.lasted_s,
                }
            )
            self._next_event += 1

    def picture(self) -> Picture | None:
        """The image of all points as the last cycle left it."""
        return self._shared.read_image()

    def order(self, kind: int, value: float, for_s: float) -> None:
        """Put an order of shared.h (ORDER_NAMES) into the core's mailbox, as the gateway would."""
        self.world.order(kind, value, for_s)

    def put_plan(
        self,
        rows: Sequence[PlanRow],
        *,
        billing_end_t_ns: int = 0,
        billing_number: int = 0,
        paid_w: float = 0.0,
        clock: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        """Leave spans of virtual time (`world.t_ns`) in the core's plan, as the gateway would."""
        self._shared.put_plan(
            rows, billing_end_t_ns=billing_end_t_ns, billing_number=billing_number, paid_w=paid_w, clock=clock
        )

    # ---------------------------------------------------------------- results

    @property
    def sha256(self) -> str:
        """Hash of all that left the controller: bytes and frames with their times, meter records, events."""
        return self._hash.hexdigest()

    @property
    def speed_cycles_per_s(self) -> float:
        """Cycles run per second of processor time, world and core together: what one core of its own would do."""
        return self.world.cycle / self.cpu_s if self.cpu_s > 0 else 0.0

    @property
    def speed_x_realtime(self) -> float:
        """Virtual seconds per second on the clock, other programs' share of the machine included."""
        return self.world.cycle * self.period_ns * 1e-9 / self.wall_s if self.wall_s > 0 else 0.0

    def series(self) -> dict[str, NDArray[np.float64]]:
        """Decimated true and published quantities by name (`tidegate.ext.sim.world.SERIES`), one array each."""
        rows = np.concatenate(self._series) if self._series else np.empty((0, len(worlds.SERIES)))
        return {name: rows[:, i] for i, name in enumerate(worlds.SERIES)}

    @property
    def events(self) -> list[EventRow]:
        """Events of the core, oldest first, with the fields of the `event` stream."""
        return self._events

    def meter_records(self) -> Iterator[dict[str, object]]:
        """The records of the `meter` stream: one a second, all points in Wh, Ws, s and W, plus soc."""
        boot = hashlib.sha256(b"boot %d" % self.seed).digest()[:16].hex()
        wanted = [
            (i, name)
            for i, (name, unit) in enumerate(self._points)
            if unit in METER_UNITS or name.rsplit(".", 1)[-1] == "soc"
        ]
        for seq, cycle, t_ns, values, qualities in self._meters:
            points = {}
            for i, name in wanted:
                good = qualities[i] in (Quality.GOOD, Quality.HELD)
                points[name] = [float(values[i]) if good else None, qualities[i]]
            yield {
                "v": 1,
                "kind": "meter",
                "site": self.built.site.site.name,
                "boot": boot,
                "seq": seq,
                "cycle": cycle,
                "t_ns": t_ns,
                "utc_ns": self.utc_start_ns + t_ns - START_NS,
                "utc_sync": "S",
                "program": self.built.site.sha256,
                "points": points,
            }

    def totals(self) -> dict[str, float]:
        """True energies of the plant at full rate: Wh, W and s, each in the unit that its name ends in."""
        return energies(self.world.totals)

    def verdict(self) -> Verdict:
        """Grid peak and energy above the limit, without the cabinet, with it, and the floor; see docs/simulator.md."""
        totals = self.totals()
        floor = self.floor()
        return {
            "limit_w": self.limit_w,
            "reaction_s": reaction_s(self.built),
            "steps": int(totals["steps"]),
            "grid_peak_w": {
                "without": totals["peak_without_w"],
                "with": totals["peak_with_w"],
                "with_outside_reaction": totals["peak_outside_w"],
            },
            "energy_above_limit_wh": {
                "without": totals["above_without_wh"],
                "with": totals["above_with_wh"],
                "with_outside_reaction": totals["above_outside_wh"],
                "floor": floor["energy_wh"],
                "floor_recharging": floor["energy_recharging_wh"],
            },
        }

    @property
    def limit_w(self) -> float:
        """The tightest import limit of the site, by which the plant is judged."""
        control = self.built.rows["control"]
        return float(min(control["connection_import_w_max"], control["peak_w_max"]))

    def wire_s(self) -> float:
        """One least read (2 registers) and one least write (2 registers) on the site's own lines, silences kept."""
        total_s = 0.0
        grid = self.built.rows["site"]["grid_w"]
        name = self.built.rows["points"][grid]["name"].split(".")[0] if grid >= 0 else ""
        pcs = next(iter(self.built.converters), "")
        for device, count in ((name, 8 + 9), (pcs, 13 + 8)):
            row = self.built.slaves.get(device)
            if row is None:
                continue
            port = self.built.rows["ports"][self.built.rows["slaves"][row]["port"]]
            bits = 1 + port["data_bits"] + port["stop_bits"] + (port["parity"] != "N")
            if device == pcs:  # the write counts to its last byte, the reply comes later
                total_s += 13 * bits / port["baud"]
            else:
                total_s += count * bits / port["baud"] + self.built.settings.turnaround_ms * 1e-3
        return total_s

    def floor(self) -> dict[str, float]:
        """What a perfect controller behind the same meter, wire and converter would leave on the same load.

        energy_wh: one that never charges; energy_recharging_wh: one that also recharges as this site is told to, so
        that a step may find it charging. See `tidegate.ext.sim.floor.floor_energy`.
        """
        settings, control = self.built.settings, self.built.rows["control"]
        t_ns, power_w = steps(self._load, settings)
        gates = [unit["gate"] for unit in self.built.rows["units"]]
        common = {
            "limit_w": self.limit_w,
            "seconds": self.world.t_s,
            "cooling_share": settings.cooling_share,
            "cooling_mean_s": settings.cooling_mean_s,
            "meter_interval_s": settings.meter_update_ms * 1e-3 * (1.0 + 31e-6),
            "meter_phase_s": 0.37 * settings.meter_update_ms * 1e-3,
            "meter_delay_s": settings.meter_delay_ms * 1e-3,
            "wire_s": self.wire_s(),
            "dead_s": settings.pcs_dead_ms * 1e-3,
            "tau_s": settings.pcs_tau_ms * 1e-3,
            "ramp_w_per_s": settings.pcs_ramp_w_per_s * max(1, len(gates)),
            "discharge_w_max": float(sum(gate["discharge_w_max"] for gate in gates)),
        }
        still = floor_energy(t_ns, power_w, **common)
        charging = floor_energy(
            t_ns,
            power_w,
            **common,
            charge_w_max=min(control["recharge_rate_w"], float(sum(gate["charge_w_max"] for gate in gates))),
            recharge_w_max=min(control["recharge_w_max"], self.limit_w),
        )
        return {
            "energy_wh": still["energy_wh"],
            "peak_w": still["peak_w"],
            "energy_recharging_wh": charging["energy_wh"],
            "peak_recharging_w": charging["peak_w"],
        }

    def reasons(self) -> dict[str, float]:
        """Seconds for which each binding reason held."""
        cycles = self.world.checks["reason_cycles"]
        return {name: cycles[i] * self.period_ns * 1e-9 for i, name in enumerate(REASONS_BY_NUMBER) if cycles[i] > 0}

    @property
    def checks(self) -> dict[str, int]:
        """Violations that the world saw from outside, cycles counted; all but `cycles` should be 0."""
        found = dict(self.world.checks)
        for key in ("reason_cycles", "mode_cycles"):
            found.pop(key)
        return found

    @property
    def step_to_wire_ms(self) -> list[float]:
        """For each answered load step: grid meter's registers -> last byte of the first setpoint that answers it."""
        return list(self.world.answers_ms)

    def lines(self) -> list[dict[str, object]]:
        """Transaction statistics, one dict a serial line, with its name."""
        return [
            {"name": port["name"], **row}
            for port, row in zip(self.built.rows["ports"], self.world.lines(), strict=True)
        ]
