"""How live figures stood up: what was last shown of a period against what was booked for it.

A figure that differs by more than 1 % and was shown as good is the fault that this looks for; it is counted, named and
published with the figures themselves.
"""

from dataclasses import dataclass, field

from tidegate.runtime.carbon.live.live_figures import Figures

TOLERANCE = 0.01
LEAST_G_PER_KWH = 1.0  # below, a relative difference says nothing
NAMED_MAX = 8
SHOWN_MOST = 96  # periods shown and not booked yet


@dataclass(slots=True)
class StoodUp:
    """Counts over this run of the sidecar, and the newest differences by name."""

    periods: int = 0
    within: int = 0  # within 1 % of what was booked
    flagged: int = 0  # beyond, and shown with a reason
    unflagged: int = 0  # beyond, and shown as good
    named: list[str] = field(default_factory=list)
    _shown: dict[int, tuple[Figures, bool]] = field(default_factory=dict)

    def show(self, start_utc_s: int, figures: Figures, good: bool) -> None:
        """Remember what was last shown of a period."""
        self._shown[start_utc_s] = figures, good
        while len(self._shown) > SHOWN_MOST:
            self._shown.pop(next(iter(self._shown)))

    def waits_for(self, start_utc_s: int) -> bool:
        """Whether something was shown of a period and it was not compared yet."""
        return start_utc_s in self._shown

    def booked(self, start_utc_s: int, figures: Figures) -> None:
        """Compare with what was booked."""
        kept = self._shown.pop(start_utc_s, None)
        if kept is None:
            return
        shown, good = kept
        self.periods += 1
        wrong = differences(shown, figures)
        if not wrong:
            self.within += 1
        elif good:
            self.unflagged += 1
            self.named = [*self.named, f"period {start_utc_s}: {', '.join(wrong)}"][-NAMED_MAX:]
        else:
            self.flagged += 1


def differences(shown: Figures, booked: Figures) -> list[str]:
    """Figures that differ by more than 1 %; carbon as a rate, since the shown period was not over."""
    found = []
    rows = [
        ("g/kWh", shown.g_per_kwh, booked.g_per_kwh, LEAST_G_PER_KWH),
        ("PUE", shown.pue, booked.pue, 1.0),
        ("renewable share direct", shown.renewable_direct, booked.renewable_direct, 1.0),
        ("renewable share through storage", shown.renewable_stored, booked.renewable_stored, 1.0),
        ("kg/h", _kg_per_h(shown), _kg_per_h(booked), 0.001),
    ]
    for name, ours, theirs, least in rows:
        if (ours is None) != (theirs is None):
            found.append(f"{name} {ours} shown, {theirs} booked")
        elif ours is not None and theirs is not None and abs(ours - theirs) > TOLERANCE * max(abs(theirs), least):
            found.append(f"{name} {ours:.4g} shown, {theirs:.4g} booked")
    return found


def _kg_per_h(figures: Figures) -> float | None:
    return figures.ug / 1e9 * 3600.0 / figures.elapsed_s if figures.elapsed_s else None
