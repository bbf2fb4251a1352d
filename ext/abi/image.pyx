"""Names of the image's rows and numbers, read from image.h so that no second list can disagree."""

from enum import IntEnum

QUALITY_NAMES = ("never", "good", "held", "stale", "invalid")
Quality = IntEnum("Quality", {
    "NEVER": QUALITY_NEVER, "GOOD": QUALITY_GOOD, "HELD": QUALITY_HELD, "STALE": QUALITY_STALE,
    "INVALID": QUALITY_INVALID,
}, module=__name__)  # enum point_quality

# numpy.dtype(POINT_FIELDS) is one row of the image; kept as plain data because the core never imports numpy.
POINT_FIELDS = [("value", "<f8"), ("t_ns", "<u8"), ("quality", "<u4"), ("changes", "<u4")]


cdef str _word(const char* text):
    return text.decode()


cdef list _site_rows():
    return [(_word(SITE_POINT_NAMES[i][0]), _word(SITE_POINT_NAMES[i][1])) for i in range(<int>SITE_POINTS)]


cdef list _unit_rows():
    return [(_word(UNIT_POINT_NAMES[i][0]), _word(UNIT_POINT_NAMES[i][1])) for i in range(<int>UNIT_POINTS)]


cdef list _reasons():
    return [_word(REASON_NAMES[i]) for i in range(<int>REASONS)]


cdef list _modes():
    return [_word(MODE_NAMES[i]) for i in range(<int>MODES)]


SITE_NAMES, SITE_UNITS = zip(*_site_rows())
UNIT_NAMES, UNIT_UNITS = zip(*_unit_rows())
REASONS_BY_NUMBER = tuple(_reasons())
MODES_BY_NUMBER = tuple(_modes())
METER_TURNED = VERDICT_SIGN
POINTS_LIMIT = POINTS_MAX
UNITS_LIMIT = UNITS_MAX


def unit_point(unit, which):
    """Image index of a storage unit's own point.

    unit : number of the storage unit, from 0. which : index into UNIT_NAMES, or the name itself.
    """
    if isinstance(which, str):
        which = UNIT_NAMES.index(which)
    if not 0 <= unit < UNITS_MAX:
        raise ValueError(f"storage unit {unit}: a site has units 0..{UNITS_MAX - 1}")
    if not 0 <= which < UNIT_POINTS:
        raise ValueError(f"unit point {which}: expected 0..{UNIT_POINTS - 1}")
    return SITE_POINTS + unit * UNIT_POINTS + which


def fixed_points(n_units):
    """Name and unit of every row that stands before the device maps' rows, in image order."""
    rows = list(zip(SITE_NAMES, SITE_UNITS))
    for unit in range(n_units):
        rows += [(f"unit{unit}.{name}", word) for name, word in zip(UNIT_NAMES, UNIT_UNITS)]
    return rows


def layout():
    """Sizes and versions that this module was compiled with; see `check_layouts`."""
    return {
        "IMAGE_LAYOUT_VERSION": IMAGE_LAYOUT_VERSION,
        "POINTS_MAX": POINTS_MAX,
        "UNITS_MAX": UNITS_MAX,
        "SITE_POINTS": SITE_POINTS,
        "UNIT_POINTS": UNIT_POINTS,
        "REASONS": REASONS,
        "point_t": sizeof(point_t),
        "integral_t": sizeof(integral_t),
    }


def check_layouts(modules):
    """Refuse modules that were compiled against different headers.

    modules : extension modules with a `layout()`. A key that two of them name must have one value: a module left over
    from an older build would otherwise read the wrong bytes without a word.
    Raises ImportError naming both modules, the key and the remedy.
    """
    seen = {}
    for module in modules:
        for key, value in module.layout().items():
            if key in seen and seen[key][1] != value:
                other, expected = seen[key]
                raise ImportError(
                    f"{module.__name__} was built with {key} = {value}, {other} with {expected}: "
                    "the compiled core is mixed from two builds; run `make build` (or reinstall the wheel)"
                )
            seen.setdefault(key, (module.__name__, value))
