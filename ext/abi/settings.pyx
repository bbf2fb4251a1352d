"""The settings of the control, by name, and the rows of those that may change at run time."""

from typing import NamedTuple

from libc.string cimport memset


class Policy(NamedTuple):
    """One row of POLICY_TABLE in settings.h."""

    name: str
    unit: str
    tighter: str
    off: float
    range: str
    hi: float
    text: str

    @property
    def lo(self):
        """Least value of the range; with `above zero` it is not in it."""
        return -self.hi if self.range == "signed" else 0.0

    @property
    def is_share(self):
        return self.unit == "1"

    def refusal(self, value):
        """Why this value cannot be, as the end of a sentence that begins with the name; "" where it can."""
        if self.range == "above zero" and value == 0:
            return "is more than 0; off switches it off"
        if self.is_share and not 0 <= value <= 1:
            return f"lies between 0 and 1, got {value:g}"
        if not value >= self.lo:
            return f"is not negative, got {value:g}" if self.lo == 0 else f"is at least {self.lo:g}, got {value:g}"
        if value > self.hi and value != self.off:
            return f"is at most {self.hi:g}, got {value:g}"
        return ""

    def is_wider(self, value, than):
        """True where `value` lets more happen than the other one."""
        return (self.tighter == "down" and value > than) or (self.tighter == "up" and value < than)


_TIGHTER = {TIGHTER_NEITHER: "", TIGHTER_DOWN: "down", TIGHTER_UP: "up"}
_RANGES = {FROM_ZERO: "from zero", ABOVE_ZERO: "above zero", SIGNED: "signed", SWITCH: "switch"}
POLICY_BY_NAME = {
    row.name: row for row in [
        Policy(POLICY_ROWS[i].field.decode(), POLICY_ROWS[i].unit.decode(), _TIGHTER[POLICY_ROWS[i].tighter],
               POLICY_ROWS[i].off, _RANGES[POLICY_ROWS[i].range], POLICY_ROWS[i].hi, POLICY_ROWS[i].text.decode())
        for i in range(POLICIES)
    ]
}
POLICY_NAMES_BY_NUMBER = tuple(POLICY_BY_NAME)
OFF = POLICY_OFF


def defaults():
    """Return every setting of the control with its value when nothing is said: no limit, nothing follows."""
    cdef control_params_t params
    memset(&params, 0, sizeof(params))
    found = dict(params)
    none = [row.name for row in POLICY_BY_NAME.values() if row.off == POLICY_OFF and row.range == "from zero"]
    return {**found, **{key: float("inf") for key in ("connection_import_w_max", "connection_export_w_max", *none)}}


cdef control_params_t params_of(dict settings) except *:
    cdef control_params_t params
    known = defaults()
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"no setting {key!r}; known: {', '.join(sorted(known))}")
        if isinstance(known[key], list):
            value = [float(one) for one in value]
            if len(value) > len(known[key]):
                raise ValueError(f"{key} takes at most {len(known[key])} values, got {len(value)}")
            value = value + known[key][len(value):]
        known[key] = value
    params = known
    return params


def layout():
    """Sizes and versions that this module was compiled with; see `tidegate.ext.abi.image.check_layouts`."""
    return {"SETTINGS_LAYOUT_VERSION": SETTINGS_LAYOUT_VERSION, "control_params_t": sizeof(control_params_t)}
