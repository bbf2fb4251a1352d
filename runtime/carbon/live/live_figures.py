"""Figures of a stretch of periods, by the report's own sums, as the rows that the gateway holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.runtime.carbon.engine.attribution import THROUGH_STORAGE
from tidegate.runtime.carbon.ledger.bodies import PeriodBody
from tidegate.runtime.carbon.report.totals import Sums, add_up, indicators, renewable_nodes

DOUBTS_MAX = 16
TEXT_MAX = 200
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Figures:
    """What people ask of a stretch: energies in mWh, carbon in ug; None where a denominator is 0."""

    energy_milliwh: int
    ug: int
    pue: float | None
    renewable_direct: float | None
    renewable_stored: float | None
    elapsed_s: int

    @property
    def g_per_kwh(self) -> float | None:
        """Carbon per energy; 1 ug/mWh is 1 g/kWh."""
        return self.ug / self.energy_milliwh if self.energy_milliwh > 0 else None

    def span(self, since_utc_s: int, until_utc_s: int, doubts: Sequence[str], *, cost: float | None = None,
             provisional: bool = True) -> dict[str, object]:  # fmt: skip
        """The figures as a row of the API has them."""
        return {
            "since_utc_s": since_utc_s,
            "until_utc_s": until_utc_s,
            "energy_kwh": round(self.energy_milliwh / 1e6, DIGITS),
            "kg": round(self.ug / 1e9, 9),
            "g_per_kwh": _rounded(self.g_per_kwh),
            "pue": _rounded(self.pue),
            "renewable_direct": _rounded(self.renewable_direct),
            "renewable_stored": _rounded(self.renewable_stored),
            "cost": cost,
            "provisional": provisional,
            "good": not doubts,
            "doubts": shortened(doubts),
        }


def site_figures(sums: Sums, kinds: Mapping[str, str]) -> Figures:
    """The whole site: energy used, storage losses included, and its carbon without what was exported."""
    found = indicators(sums, kinds)
    total_ug = sum(sums.outflow_ug.values()) - sums.export_ug + sum(sums.loss_ug.values())
    return Figures(
        sums.site_milliwh, total_ug, found.pue, found.renewable_direct, found.renewable_stored, sums.covered_s
    )


def load_figures(sums: Sums, kinds: Mapping[str, str]) -> dict[str, Figures]:
    """Each load, by its meter's name."""
    renewable = renewable_nodes(sums, kinds)
    found = {}
    for name, kind in sums.outflow_kind.items():
        if kind != "load":
            continue
        energy, direct, stored = sums.outflow_milliwh[name], 0, 0
        for origin, milliwh in sums.origins[name].items():
            if origin in renewable:
                direct += milliwh
            elif origin.removesuffix(THROUGH_STORAGE) in renewable:
                stored += milliwh
        by_sun, by_storage = (direct / energy, stored / energy) if energy else (None, None)
        found[name] = Figures(energy, sums.outflow_ug[name], None, by_sun, by_storage, sums.covered_s)
    return found


def sums_of(bodies: Sequence[PeriodBody]) -> Sums:
    """Sums of periods in the order of time."""
    return add_up(bodies)


def shortened(doubts: Sequence[str]) -> list[str]:
    """As many doubts as a row holds; the rest is counted."""
    texts = [text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 3] + "..." for text in dict.fromkeys(doubts)]
    if len(texts) > DOUBTS_MAX:
        texts = [*texts[: DOUBTS_MAX - 1], f"and {len(texts) - DOUBTS_MAX + 1} more"]
    return ["".join(c if c.isprintable() else "?" for c in text) for text in texts]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
