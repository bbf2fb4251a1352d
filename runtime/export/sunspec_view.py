"""A site as SunSpec points: what each model shows of a snapshot.

Signs are SunSpec's where it has one: model 203 is the meter at the connection, + import; in 701, 704 and 802 power is +
when the battery gives. A value that is not known is "not implemented", never 0 and never the last one.
"""

import math
from collections.abc import Iterator, Sequence

from tidegate.ext.abi.image import MODES_BY_NUMBER
from tidegate.hal import sunspec
from tidegate.hal.description import Description, Storage
from tidegate.runtime.api.messages import Message
from tidegate.runtime.export.sunspec_registers import Registers

# New models stand behind the old ones: addresses that a SCADA knows stay.
MODELS = (1, 203, 713, 704, 701, 802)
LIVE = (203, 713, 701, 802)
WATTS = "WATTS"
REVERT_S = 60.0
RESTING_W = 100.0  # below that a battery holds
PHASES = (("A", 1), ("B", 2), ("C", 3))

# Our modes in the words of the models.
INVERTER_STATES = {
    "tripped": "FAULT", "arming": "STARTING", "ready": "STANDBY", "run": "RUNNING", "derated": "THROTTLED",
    "stopping": "SHUTTING_DOWN", "off": "OFF", "manual": "RUNNING",
}  # fmt: skip
BATTERY_STATES = {
    "tripped": "FAULT", "arming": "INITIALIZING", "ready": "STANDBY", "run": "CONNECTED", "derated": "CONNECTED",
    "stopping": "SUSPENDING", "off": "STANDBY", "manual": "CONNECTED",
}  # fmt: skip
# How our faults begin -> the bit that says it; the first that fits counts, what fits none is OTHER or MANUFACTURER.
BATTERY_EVENTS = {
    "bms_never": "COMMUNICATION_ERROR", "bms_stale": "COMMUNICATION_ERROR", "bms_silent": "COMMUNICATION_ERROR",
    "bms_invalid": "COMMUNICATION_ERROR", "bms_stuck": "COMMUNICATION_ERROR", "can_": "COMMUNICATION_ERROR",
    "temp_high_warn": "OVER_TEMP_WARNING", "temp_high": "OVER_TEMP_ALARM",
    "temp_low_warn": "UNDER_TEMP_WARNING", "temp_low": "UNDER_TEMP_ALARM",
    "cell_high_warn": "OVER_VOLT_WARNING", "cell_high": "OVER_VOLT_ALARM", "pack_v_high": "OVER_VOLT_ALARM",
    "cell_low_warn": "UNDER_VOLT_WARNING", "cell_low": "UNDER_VOLT_ALARM", "pack_v_low": "UNDER_VOLT_ALARM",
    "soc_low": "UNDER_SOC_MIN_WARNING", "soc_high": "OVER_SOC_MAX_WARNING", "door_open": "OPEN_DOOR_ERROR",
    "bms_warning": "OTHER_WARNING", "": "OTHER_ALARM",
}  # fmt: skip
CONVERTER_ALARMS = {
    "temp_high": "OVER_TEMP", "temp_low": "UNDER_TEMP", "door_open": "CABINET_OPEN", "": "MANUFACTURER_ALRM",
}  # fmt: skip


def bits_of(words: dict[str, str], symbols: dict[str, int], faults: list[str]) -> int:
    """Bits of faults by the words that they begin with."""
    found = 0
    for fault in faults:
        word = next(symbol for start, symbol in words.items() if fault.startswith(start))
        found |= 1 << symbols[word]
    return found


class Snapshot:
    """Points of one moment by name, None where a value is not good or held."""

    def __init__(self, points: Message, site: Description) -> None:
        self.points, self.site = points, site

    def value(self, *names: str) -> float | None:
        """The first of these that has a value."""
        for name in names:
            point = self.points.get(name)
            if point is not None and point[0] is not None:
                return float(point[0])
        return None

    def each(self, *signals: str, of: str) -> list[float] | None:
        """A signal of every battery or converter, None where one of them does not say it. of: "battery" or "pcs"."""
        found = [self.value(*(f"{getattr(unit, of)}.{one}" for one in signals)) for unit in self.site.units]
        known = [one for one in found if one is not None]
        return known if known and len(known) == len(found) else None

    def total(self, *signals: str, of: str) -> float | None:
        found = self.each(*signals, of=of)
        return None if found is None else sum(found)

    def weighted(self, signal: str) -> float | None:
        """A share of all batteries by their energy."""
        found = self.each(signal, of="battery")
        weights = [unit.energy_wh or 1.0 for unit in self.site.units]
        if found is None:
            return None
        return sum(one * weight for one, weight in zip(found, weights, strict=True)) / sum(weights)

    @property
    def mode(self) -> str:
        number = self.value("site.mode")
        return MODES_BY_NUMBER[int(number)] if number is not None and 0 <= number < len(MODES_BY_NUMBER) else ""

    def fault_words(self, what: str = "fault_bits") -> list[int]:
        """The fault bits of all units together, in words of 32."""
        return [self._word(f"{what}_{word}") for word in ("lo", "hi", "64", "96")]

    def _word(self, name: str) -> int:
        found = 0
        for at in range(len(self.site.units)):
            found |= int(self.value(f"unit{at}.{name}") or 0)
        return found

    def faults(self) -> list[str]:
        """Names of the faults that are active or latched in any unit."""
        bits = 0
        for what in ("fault_bits", "latch_bits"):
            bits |= sum(word << 32 * at for at, word in enumerate(self.fault_words(what)))
        return [name for bit, name in sorted(self.site.fault_names().items()) if bits >> bit & 1]


class SunSpecView:
    """Keeps a register image as snapshots say."""

    def __init__(self, site: Description) -> None:
        self.site = site
        self.registers = Registers(MODELS)
        self.grid = next((one.name for one in site.devices if one.role == "grid-meter"), "grid")
        self.energy_wh = sum(unit.energy_wh for unit in site.units)
        put, text = self.registers.put, self.registers.text
        text(1, "Mn", "Tidegate")
        text(1, "Md", "Site controller")
        text(1, "SN", site.site.name)
        power_sf = self._power_exponent()
        for number, name, value in (
            (203, "W_SF", power_sf), (203, "A_SF", -1), (203, "V_SF", -1), (203, "Hz_SF", -2), (203, "TotWh_SF", 0),
            (713, "WH_SF", self._exponent(self.energy_wh, 65_534, 1)), (713, "Pct_SF", -1),
            (704, "WSet_SF", 0), (704, "WSetEna", 0), (704, "WSetMod", sunspec.symbols(704, "WSetMod")[WATTS]),
            (704, "WSet", 0), (704, "WSetRvrtTms", REVERT_S), (704, "WSetRvrtRem", 0),
            (701, "W_SF", power_sf), (701, "V_SF", -1), (701, "A_SF", -1), (701, "Hz_SF", -2), (701, "TotWh_SF", 0),
            (802, "WHRtg_SF", self._exponent(self.energy_wh, 65_534, 1)), (802, "SoC_SF", -1), (802, "SoH_SF", -1),
            (802, "AHRtg_SF", 0), (802, "V_SF", -1), (802, "A_SF", -1), (802, "AMax_SF", -1), (802, "CellV_SF", -3),
            (802, "W_SF", power_sf), (802, "WChaDisChaMax_SF", self._exponent(self._widest_w(site.units), 65_534, 1)),
        ):  # fmt: skip
            put(number, name, value)
        self._fixed = {number: self._constant(number) for number in LIVE}
        self.silent()

    @staticmethod
    def _exponent(most: float, room: int, least: int = 0) -> int:
        """The scale factor with which `most` fits a register that holds up to `room`."""
        return max(least, math.ceil(math.log10(max(1.0, most) / room)))

    @staticmethod
    def _widest_w(units: tuple[Storage, ...]) -> float:
        return max(sum(unit.charge_w_max for unit in units), sum(unit.discharge_w_max for unit in units))

    def _power_exponent(self) -> int:
        """For powers at the connection, with room for twice of what it is made for; 10 MW where nobody says."""
        ends = (self.site.limits.connection_import_w_max, self.site.limits.connection_export_w_max)
        widest = max([end for end in ends if end], default=5e6)
        return self._exponent(2 * max(widest, self._widest_w(self.site.units)), 32_767, 1)

    def _constant(self, number: int) -> set[str]:
        """Scale factors: what stays when the site is silent."""
        return {name for name in sunspec.model(number).points if name.endswith("_SF")}

    def silent(self) -> None:
        """The site says nothing any more: no old value stays."""
        for number in LIVE:
            self.registers.clear(number, self._fixed[number])

    def live(self, address: int, count: int) -> bool:
        """Whether a read touches what a site has to say, and not only heads of models and scale factors."""
        fixed = {at for number in self.registers.models for name in ("ID", "L", *self._fixed.get(number, ()))
                 for at in range(*self._span(number, name))}  # fmt: skip
        spans = [range(self.registers.starts[n], self.registers.starts[n] + sunspec.model(n).length) for n in LIVE]
        return any(at in span and at not in fixed for at in range(address, address + count) for span in spans)

    def _span(self, number: int, name: str) -> tuple[int, int]:
        at, size = self.registers.place(number, name)
        return at, at + size

    def take(self, points: Message) -> None:
        """Show a snapshot."""
        now = Snapshot(points, self.site)
        for number, name, value in (*self._meter(now), *self._converter(now), *self._battery(now)):
            self.registers.scaled(number, name, value)
        self.registers.text(701, "MnAlrmInfo", ", ".join(now.faults()))

    def _meter(self, now: Snapshot) -> Iterator[tuple[int, str, float | None]]:
        amps = [now.value(f"{self.grid}.current_l{at}_a") for _, at in PHASES]
        volts = [now.value(f"{self.grid}.voltage_l{at}_v") for _, at in PHASES]
        pairs = [now.value(f"{self.grid}.voltage_l{a}l{b}_v", f"{self.grid}.voltage_l{a}{b}_v")
                 for a, b in ((1, 2), (2, 3), (3, 1))]  # fmt: skip
        yield 203, "A", _sum(amps)
        yield 203, "PhV", _mean(volts)
        yield 203, "PPV", _mean(pairs)
        for (letter, at), amp, volt in zip(PHASES, amps, volts, strict=True):
            yield 203, f"Aph{letter}", amp
            yield 203, f"PhVph{letter}", volt
            yield 203, f"Wph{letter}", now.value(f"{self.grid}.power_l{at}_w")
        for name, volt in zip(("AB", "BC", "CA"), pairs, strict=True):
            yield 203, f"PhVph{name}", volt
        grid_w = now.value("site.grid_w")
        yield 203, "W", grid_w
        yield 203, "Hz", now.value(f"{self.grid}.frequency_hz", f"{self.grid}.freq_hz")
        for name, signal in (("TotWhImp", "import_wh"), ("TotWhExp", "export_wh")):
            counted = now.value(f"{self.grid}.{signal}")
            yield 203, name, None if counted is None else counted % 2**32  # an accumulator begins anew
        missing = sunspec.symbols(203, "Evt")["M_EVENT_Missing_Sensor"]
        yield 203, "Evt", 0 if grid_w is not None else 1 << missing

    def _converter(self, now: Snapshot) -> Iterator[tuple[int, str, float | None]]:
        state = INVERTER_STATES.get(now.mode)
        alarms = bits_of(CONVERTER_ALARMS, sunspec.symbols(701, "Alrm"), now.faults())
        if now.mode in ("off", "stopping"):
            alarms |= 1 << sunspec.symbols(701, "Alrm")["MANUAL_SHUTDOWN"]
        working = now.mode in ("ready", "run", "derated", "manual")
        yield 701, "ACType", sunspec.symbols(701, "ACType")["THREE_PHASE"]
        yield 701, "St", None if state is None else sunspec.symbols(701, "St")["ON" if working else "OFF"]
        yield 701, "InvSt", None if state is None else sunspec.symbols(701, "InvSt")[state]
        yield 701, "Alrm", alarms
        yield 701, "W", now.value("site.ess_w")
        yield 701, "Hz", next(iter(now.each("frequency_hz", of="pcs") or ()), None)
        yield 701, "TotWhInj", now.total("discharged_wh", of="pcs")
        yield 701, "TotWhAbs", now.total("charged_wh", of="pcs")

    def _battery(self, now: Snapshot) -> Iterator[tuple[int, str, float | None]]:
        soc, soh = now.weighted("soc"), now.weighted("soh")
        faults = now.faults()
        state = BATTERY_STATES.get(now.mode)
        percent = None if soc is None else 100.0 * soc
        health = None if soh is None else 100.0 * soh
        worst = "OK" if not faults else "ERROR" if now.mode == "tripped" else "WARNING"
        yield 713, "WHRtg", self.energy_wh
        yield 713, "WHAvail", None if soc is None else self.energy_wh * soc
        yield 713, "SoC", percent
        yield 713, "SoH", health
        yield 713, "Sta", sunspec.symbols(713, "Sta")[worst]
        yield 802, "WHRtg", self.energy_wh
        yield 802, "WChaRteMax", sum(unit.charge_w_max for unit in self.site.units)
        yield 802, "WDisChaRteMax", sum(unit.discharge_w_max for unit in self.site.units)
        yield 802, "SoCMin", 100.0 * max((unit.soc_min for unit in self.site.units), default=0.0)
        yield 802, "SoCMax", 100.0 * min((unit.soc_max for unit in self.site.units), default=1.0)
        yield 802, "SoC", percent
        yield 802, "SoH", health
        yield 802, "ChaSt", self._charging(now, soc)
        yield 802, "Typ", sunspec.symbols(802, "Typ")["NOT APPLICABLE_UNKNOWN"]
        yield 802, "State", None if state is None else sunspec.symbols(802, "State")[state]
        yield 802, "Evt1", bits_of(BATTERY_EVENTS, sunspec.symbols(802, "Evt1"), faults)
        yield 802, "Evt2", 0
        low, high, *_ = now.fault_words()
        yield 802, "EvtVnd1", low
        yield 802, "EvtVnd2", high
        yield 802, "V", _mean(now.each("pack_v", of="battery") or [None])
        yield 802, "A", now.total("pack_a", of="battery")
        yield 802, "AChaMax", now.total("charge_a_max", of="battery")
        yield 802, "ADisChaMax", now.total("discharge_a_max", of="battery")
        yield 802, "W", now.value("site.ess_w")
        yield 802, "CellVMax", max(now.each("cell_v_max", of="battery") or [math.nan])
        yield 802, "CellVMin", min(now.each("cell_v_min", of="battery") or [math.nan])

    def _charging(self, now: Snapshot, soc: float | None) -> int | None:
        names = sunspec.symbols(802, "ChaSt")
        ess_w = now.value("site.ess_w")
        if ess_w is None:
            return None
        if abs(ess_w) > RESTING_W:
            return names["DISCHARGING" if ess_w > 0 else "CHARGING"]
        if soc is not None and soc >= max(unit.soc_max for unit in self.site.units):
            return names["FULL"]
        if soc is not None and soc <= min(unit.soc_min for unit in self.site.units):
            return names["EMPTY"]
        return names["HOLDING"]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) if known and len(known) == len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
