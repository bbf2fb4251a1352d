"""A question to the planner beside this unit: the plan, and the one that it would be if a limit were another.

The planner is a process of its own and answers on loopback (docs/planner.md). A question moves nothing.
"""

import asyncio
import http.client
from urllib.parse import urlencode

import msgspec

from tidegate.runtime.api.messages import Refused

ANSWER_S = 90.0  # two plans; the solver has 20 s for each
BODY_BYTES_MAX = 1 << 18
FIELDS = ("peak_limit_kw", "jobs_later_h")


async def what_if(port: int | None, query: dict[str, str]) -> dict[str, object]:
    """Both plans' figures as the planner gives them. Raises Refused."""
    if port is None:
        raise Refused("unavailable", "this page was started without --planner-port: it knows of no planner to ask")
    if foreign := sorted(set(query) - set(FIELDS)):
        raise Refused("invalid-field", f"{foreign[0][:32]}: a what-if has {' and '.join(FIELDS)}")
    try:
        asked = {name: f"{float(value):.6g}" for name, value in query.items() if value}
    except ValueError:
        raise Refused("invalid-field", "write numbers, such as peak_limit_kw=60") from None
    status, body = await asyncio.to_thread(_get, port, f"/what-if?{urlencode(asked)}")
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.DecodeError:
        raise Refused("unavailable", f"127.0.0.1:{port} answered {status} and no JSON: is that a planner?") from None
    if status == http.client.CONFLICT:
        raise Refused("invalid-field", str(found.get("text"))[:300])
    if status != http.client.OK:
        raise Refused("unavailable", f"the planner at 127.0.0.1:{port} answered {status}")
    return found


def _get(port: int, path: str) -> tuple[int, bytes]:
    held = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        held.request("GET", path)
        answer = held.getresponse()
        return answer.status, answer.read(BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException) as why:
        raise Refused("unavailable", f"no planner answers at 127.0.0.1:{port} ({why}): is `tidegate planner run --port "
                      f"{port}` running?") from None  # fmt: skip
    finally:
        held.close()
