"""What the gateway knows of the site now: points, mode, reasons, faults, lease, and why the setpoint is what it is."""

import time
from collections.abc import Mapping, Sequence

import msgspec

from tidegate.ext.abi import image, shared
from tidegate.ext.abi.settings import POLICY_BY_NAME
from tidegate.ext.safety.gate import FAULT_ROWS
from tidegate.hal.description import RENAMED_NODE_FIELDS, RENAMED_POINTS, Description
from tidegate.runtime.api import messages
from tidegate.runtime.api.messages import Refused
from tidegate.runtime.gateway.command_handler import Desk
from tidegate.runtime.gateway.grid_operator import GridOperator
from tidegate.runtime.gateway.orders_held import left_ms
from tidegate.runtime.gateway.records import SITE_SOC, Records
from tidegate.runtime.gateway.words import words_of

UNIT_SIGNALS = ("setpoint_w", "request_w", "envelope_lo_w", "envelope_hi_w", "state")


class SiteView:
    """Reads the core's image, and the desk's orders in force. Nothing here changes anything."""

    def __init__(self, site: Description, memory: shared.Shared, records: Records, desk: Desk) -> None:
        self.memory = memory
        self.records = records
        self.desk = desk
        self.described = site
        self.grid_operator: GridOperator | None = None
        self._index = {name: i for i, name in enumerate(records.names)}
        self._index |= {old: self._index[new] for old, new in RENAMED_POINTS.items() if new in self._index}
        for at, unit in enumerate(site.units):  # a unit's own points also under the name that the site file gives it
            own = {name: i for name, i in self._index.items() if name.startswith(f"unit{at}.")}
            aliases = {f"{unit.name}.{name.partition('.')[2]}": i for name, i in own.items()}
            self._index = aliases | self._index
        self._words = words_of(site)

    def description(self, ops: Mapping[str, str]) -> dict[str, object]:
        """What `describe` answers: the site, also under the names of version 1; and the names of what has a number."""
        said = msgspec.to_builtins(self.described)
        old = {new: old for old, new in RENAMED_POINTS.items()}
        points = [{**row, "name": old[row["name"]]} for row in said["points"] if row["name"] in old]
        for node in said["nodes"]:
            node.update({old: node[new] for old, new in RENAMED_NODE_FIELDS.items()})
        return {
            **said,
            # Behind those of the image, whose order is that of the image.
            "points": [*said["points"], *self.records.derived_rows, *points],
            "words": self._words,
            "reasons": list(image.REASONS_BY_NUMBER),
            "modes": list(image.MODES_BY_NUMBER),
            "qualities": list(messages.QUALITIES),
            "wire_version": messages.WIRE_VERSION,
            "ops": ops,
            "codes": messages.CODES,
        }

    def points(self, names: list[str], ages: bool) -> dict[str, object]:
        """Values and qualities of these points, of all if none is named; with `ages` also how old they are, ms."""
        picture = self.memory.read_image()
        if picture is None:
            raise Refused("core-down", "the core ended in the middle of a cycle")
        derived = self.records.derived(picture)
        unknown = [name for name in names if name not in self._index and name not in derived]
        if unknown:
            raise Refused("unknown-point", f"{unknown[0][:64]!r} is no point of this site"[: messages.TEXT_MAX])
        if names:
            values, qualities = picture.values, picture.qualities
            wanted = ((name, self._index[name]) for name in names if name not in derived)
            points = {name: (messages.number(values[i], qualities[i]), qualities[i]) for name, i in wanted}
            points |= {name: derived[name] for name in names if name in derived}
        else:
            points = self.records.points(picture)
        if not ages:
            return {"points": points}
        now_ns, times = time.monotonic_ns(), picture.times_ns
        t_ns = {name: times[self._index[name]] for name in points if name not in derived}
        t_ns |= {name: self.records.derived_t_ns(times) for name in points if name in derived}
        ages_ms = {name: max(0.0, (now_ns - at_ns) / 1e6) if at_ns else None for name, at_ns in t_ns.items()}
        return {"points": points, "ages_ms": ages_ms}

    def values(self, names: Sequence[str]) -> dict[str, float | None]:
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

    def why(self) -> dict[str, object]:
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
        told: dict[str, object] = {name.partition(".")[2]: value for name, value in now.items()}
        told["mode"] = self.mode()
        told["reason"] = self.reason("site.reason")
        told["preference"] = self.reason("site.preference")
        told["faults"] = self._faults("fault_bits")
        told["latches"] = self._faults("latch_bits")
        told["lease"] = self.lease()
        told["soc"] = self._soc()
        told["units"] = [self._unit(at, unit.name) for at, unit in enumerate(self.described.units)]
        told["stopped"] = self.desk.stopped
        told["stops"] = self.desk.stops.told()
        told["policies"] = self.desk.policies.in_force(time.monotonic_ns())
        peak = self.desk.policies.site("peak_w_max")
        told["peak_w_max_of_file"] = peak if peak < POLICY_BY_NAME["peak_w_max"].off else None
        if self.desk.plan:
            steps = [
                {"start_utc_s": one.start_utc_s, "end_utc_s": one.end_utc_s, "forced": one.forced, **one.values}
                for one in self.desk.plan
            ]
            told["plan"] = {"owner": self.desk.plan_owner, "steps": steps}
        told["unenforced"] = self._unenforced()
        told["hunting"] = int(self.values(("site.hunting",))["site.hunting"] or 0)
        operator = self.grid_operator.held if self.grid_operator is not None else None
        if operator is not None:
            told["grid_operator"] = operator.told(self.records.clock.utc_ns(time.monotonic_ns())) | {
                "text": operator.text
            }
        wait = self.values(("site.reconnect_s", "site.reconnect_w"))
        if wait["site.reconnect_w"] is not None:
            told["reconnect"] = {"wait_s": wait["site.reconnect_s"], "power_w": wait["site.reconnect_w"]}
        manual = self.desk.manual
        if manual is not None:
            told["manual"] = {"peer": manual.peer, "left_ms": left_ms(manual.until_ns, time.monotonic_ns())}
        return told

    def refuse_idle(self) -> None:
        """Raise Refused, with the way out, where the cabinet takes no power from anybody."""
        mode = self.mode()
        faults = self._faults("fault_bits")
        latches = [one for one in self._faults("latch_bits") if one not in faults]
        if mode == "tripped" and faults:
            text = f"tripped by {', '.join(faults)}; `tidegate alarms` says what ends that"
        elif mode == "tripped" and latches:
            text = (
                f"tripped, and latched: {', '.join(latches)}; acknowledge (`tidegate set ack`), then `tidegate set run`"
            )
        elif mode == "tripped":
            text = "tripped, and no fault is left: order `tidegate set run`, and wait for the mode ready or run"
        elif mode in ("arming", "stopping", "off"):
            text = f"the cabinet is {mode}; wait for the mode ready or run" + (
                ", or order `tidegate set run`" if mode == "off" else ""
            )
        else:
            return
        raise Refused("tripped", text[: messages.TEXT_MAX])

    def _soc(self) -> float | None:
        picture = self.memory.read_image()
        return None if picture is None else self.records.derived(picture)[SITE_SOC][0]

    def _unit(self, at: int, name: str) -> dict[str, object]:
        """A storage unit under the name that the site file gives it."""
        now = self.values([f"unit{at}.{signal}" for signal in UNIT_SIGNALS])
        told: dict[str, object] = {signal: now[f"unit{at}.{signal}"] for signal in UNIT_SIGNALS if signal != "state"}
        state = now[f"unit{at}.state"]
        table = image.MODES_BY_NUMBER
        told["mode"] = table[int(state)] if state is not None and 0 <= state < len(table) else "unknown"
        for what in ("fault_bits", "latch_bits"):
            rows = [self.records.fault_name(bit) for unit, bit in self.bits(what) if unit == at]
            told["faults" if what == "fault_bits" else "latches"] = rows
        return {"name": name, "points": f"unit{at}", **told}

    def _unenforced(self) -> list[str]:
        """Configured limits that are not being enforced."""
        bits = int(self.values(("site.unenforced_bits",))["site.unenforced_bits"] or 0)
        return [name for i, name in enumerate(image.REASONS_BY_NUMBER) if bits >> i & 1]

    def bits(self, what: str) -> list[tuple[int, int]]:
        """(unit, row of the fault table) of every fault that is set. what: `fault_bits` or `latch_bits`."""
        found = []
        for unit in range(self.memory.n_units):
            words = self.values([f"unit{unit}.{what}_{word}" for word in ("lo", "hi", "64", "96")]).values()
            bits = sum(int(word or 0) << 32 * place for place, word in enumerate(words))
            found += [(unit, bit) for bit in range(FAULT_ROWS) if bits >> bit & 1]
        return found

    def _faults(self, what: str) -> list[str]:
        return [f"unit{unit} {self.records.fault_name(bit)}" for unit, bit in self.bits(what)]

    def units_to_arm(self) -> list[int]:
        """Units that stand tripped without a latch: an order to arm is all they wait for, once no fault is left."""
        tripped = image.MODES_BY_NUMBER.index("tripped")
        states = self.values([f"unit{unit}.state" for unit in range(self.memory.n_units)])
        latched = {unit for unit, _ in self.bits("latch_bits")}
        return [at for at, state in enumerate(states.values()) if state == tripped and at not in latched]

    def lease(self) -> dict[str, object] | None:
        held = self.desk.lease
        if held is None:
            return None
        return {
            "holder": held.peer,
            "priority": held.priority,
            "expires_ms": left_ms(held.expires_ns, time.monotonic_ns()),
            "setpoint_w": held.setpoint_w,
        }

    def histograms(self) -> dict[str, object]:
        """The loop's histograms, ns."""
        return {
            name: [[edge, count] for edge, count in self.memory.histogram(name).buckets]
            for name in ("lateness", "work", *shared.PHASE_NAMES)
        }
