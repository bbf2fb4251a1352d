"""Time zones by their names in the tz database; UTC needs none, since small boards often come without it."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC_NAME = "UTC"


def zone_of(name: str) -> tzinfo:
    """The zone of a name like Europe/Berlin. Raises ValueError for one that is not known here."""
    if name == UTC_NAME:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{name!r} is no zone that is known here; write it like Europe/Berlin (Debian: apt install tzdata)"
        ) from None
