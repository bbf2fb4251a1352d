"""Doubts of device maps that a site file says are answered."""

from tidegate.config.site import Device
from tidegate.hal.map_schema import DeviceMap


def answered(device: Device, text: str) -> bool:
    """Whether the site file says how this doubt of the device's map was answered."""
    return any(words.lower() in text.lower() for words in device.doubts_answered)


def check_answers(device: Device, found: DeviceMap, problems: list[str]) -> None:
    """An answer belongs to one doubt, and says something."""
    for words, how in device.doubts_answered.items():
        place = f"device[{device.name}].doubts_answered[{words!r}]"
        meant = [text for text in found.map.doubts if words.lower() in text.lower()]
        if not meant:
            doubts = "; ".join(found.map.doubts) or "none"
            problems.append(f"{place}: {device.map} has no doubt with these words; it has: {doubts}")
        elif len(meant) > 1:
            problems.append(f"{place}: {len(meant)} doubts have these words ({'; '.join(meant)}); use more of them")
        if not how.strip():
            problems.append(f'{place}: say how it was answered, such as "seen on the display, 2026-11-28"')
