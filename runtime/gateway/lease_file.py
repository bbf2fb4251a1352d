"""What was ordered and by whom, in a file of the runtime folder, so that a gateway that was killed goes on with it.

Nothing is synced: the file outlives the process, and need not outlive the machine, whose next core has another boot id.
"""

import contextlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tidegate.runtime.api.messages import PlanRank, Role
from tidegate.runtime.gateway.orders_held import Lease, LimitHeld
from tidegate.runtime.gateway.policies_held import PolicyHeld
from tidegate.runtime.state.plain_file import FLAGS, read_plain
from tidegate.runtime.state.process_users import mode_in

TIME_NS_MAX = 1 << 62  # CLOCK_MONOTONIC, with room for what is added to it


@dataclass
class Ordered:
    """The orders in force as the core's mailbox does not tell them: whose, with which rank, what is next."""

    boot: bytes = b""
    lease: Lease | None = None
    limits: dict[str, LimitHeld] = field(default_factory=dict)
    policies: dict[str, list[PolicyHeld]] = field(default_factory=dict)
    plan_owner: str = ""
    plan_role: Role = "read"
    plan_rank: PlanRank = "order"


class OrdersFile:
    """What is held during one start of the core. boot : id of that start."""

    def __init__(self, path: Path, boot: bytes) -> None:
        self.path = path
        self.boot = boot
        self.lost = ""  # why what a gateway before this one kept cannot be read

    def write(self, held: Ordered) -> None:
        """Keep it whole or not at all; nothing to keep removes it. Raises OSError."""
        held.boot = self.boot
        if held == Ordered(self.boot):
            self.path.unlink(missing_ok=True)
            return
        new = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS | os.O_NOFOLLOW
        fd = os.open(new, flags, mode_in(new.parent, 0o600))
        try:
            os.write(fd, msgspec.msgpack.encode(held))
        finally:
            os.close(fd)
        os.replace(new, self.path)

    def read(self) -> Ordered:
        """What a gateway before this one kept beside the same core; `lost` says what could not be read."""
        try:
            held = _believable(msgspec.msgpack.decode(read_plain(self.path), type=Ordered))
        except FileNotFoundError:
            return Ordered(self.boot)
        except (OSError, ValueError, RecursionError) as why:  # msgspec's own are ValueErrors
            self.lost = f"{self.path}: {why}; leases and whose orders are in force are not known"
            with contextlib.suppress(OSError):
                self.path.unlink()
            return Ordered(self.boot)
        return held if held.boot == self.boot else Ordered(self.boot)


def _believable(held: Ordered) -> Ordered:
    """What was kept, if its times and numbers can be. Raises ValueError."""
    lease = [held.lease] if held.lease is not None else []
    settings = [one for rows in held.policies.values() for one in rows]
    times = [one.ends_ns for one in settings] + [one.until_ns for one in held.limits.values()]
    times += [time for one in lease for time in (one.expires_ns, one.until_ns, one.period_ns)]
    watts = [one.value for one in settings] + [one.setpoint_w or 0.0 for one in lease]
    limits = [watts for one in held.limits.values() for watts in (one.import_w_max, one.export_w_max)]
    if not all(0 <= one <= TIME_NS_MAX for one in times) or any(map(math.isnan, watts + limits)):
        raise ValueError("a time or a number that cannot be")
    return held
