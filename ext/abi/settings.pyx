"""The settings of the control, by name."""

from libc.string cimport memset

_NONE = ("connection_import_w_max", "connection_export_w_max", "peak_w_max", "recharge_w_max")


def defaults():
    """Return every setting of the control with its value when nothing is said: no limit, nothing follows."""
    cdef control_params_t params
    memset(&params, 0, sizeof(params))
    found = dict(params)
    return {**found, **{key: float("inf") for key in _NONE}}


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
