"""Whose a GPU's energy is: of the pod that held it, of the slices of one that was cut (MIG), of nobody.

DCGM counts the energy of whole cards and says it again for each slice and, with time slicing, for each pod. A card is
therefore counted once. Its slices share it by their size (3g of 7), pods that held one slice at a time share it evenly,
and what nobody held is unclaimed.
"""

from collections.abc import Iterator, Mapping, Sequence

from tidegate.runtime.carbon.jobs.work import BUCKET_S
from tidegate.runtime.telemetry.gpu_slices import size_of

Step = tuple[float, float, float]  # start, end, mWh
Key = tuple[str, str, str]  # job, owner, load


def is_card(labels: Mapping[str, str]) -> bool:
    return labels.get("__name__", "").startswith("DCGM_")


class _Slice:
    """One slice of a card, or a card that was not cut: who held it when, and the card's energy meanwhile."""

    def __init__(self, slices: int) -> None:
        self.slices = slices
        self.held: list[tuple[Key, bool, Sequence[Step]]] = []

    def by_bucket(self) -> dict[int, list[tuple[Key, bool, float, float, float]]]:
        """(key, claimed, start, end, mWh of the card) of what lies in each bucket."""
        found: dict[int, list[tuple[Key, bool, float, float, float]]] = {}
        for key, claimed, steps in self.held:
            for t0, t1, milliwh in steps:
                at = t0
                while at < t1:
                    start = int(at // BUCKET_S) * BUCKET_S
                    until = min(t1, start + BUCKET_S)
                    part = milliwh * (until - at) / (t1 - t0)
                    found.setdefault(start, []).append((key, claimed, at, until, part))
                    at = until
        return found


class Cards:
    """Takes the lines of all cards, and gives each holder its part."""

    def __init__(self) -> None:
        self._cards: dict[tuple[str, str], dict[str, _Slice]] = {}
        self._whole: dict[tuple[str, str], int] = {}
        self._idle: dict[tuple[str, str], Key] = {}

    def add(self, labels: Mapping[str, str], key: Key, claimed: bool, steps: Sequence[Step]) -> None:
        """One line. claimed : a pod held what it is about. key : of the pod, else of the host."""
        uuid = labels.get("UUID") or labels.get("uuid")
        host = labels.get("Hostname") or labels.get("node") or labels.get("instance", "")
        card = ("", uuid) if uuid else (host, labels.get("gpu", ""))
        slices, whole = size_of(labels)
        own = self._cards.setdefault(card, {})
        self._whole[card] = whole
        idle = (f"{key[0] if not claimed else host}/gpu {uuid or labels.get('gpu', '')}", "", key[2])
        self._idle.setdefault(card, idle)
        one = own.setdefault(labels.get("GPU_I_ID", ""), _Slice(slices))
        one.held.append((key if claimed else self._idle[card], claimed, steps))

    def split(self) -> Iterator[tuple[Key, bool, list[Step]]]:
        """(key, claimed, steps) of every part. The parts of a card add up to what it drew."""
        for card, slices in self._cards.items():
            if len(slices) > 1:
                slices.pop("", None)  # the whole card, beside its slices
            yield from self._split(card, slices)

    def _split(self, card: tuple[str, str], slices: Mapping[str, _Slice]) -> Iterator[tuple[Key, bool, list[Step]]]:
        whole = max(self._whole[card], sum(one.slices for one in slices.values()))
        buckets = {name: one.by_bucket() for name, one in slices.items()}
        for start in sorted({start for rows in buckets.values() for start in rows}):
            drawn = 0.0
            given = 0.0
            span = (float(start + BUCKET_S), float(start))
            for name, one in slices.items():
                rows = buckets[name].get(start, ())
                together_s = sum(until - at for _, _, at, until, _ in rows)
                apart_s = _union_s([(at, until) for _, _, at, until, _ in rows])
                share = apart_s / together_s if together_s else 0.0
                drawn = max(drawn, sum(row[4] for row in rows) * share)
                for key, claimed, at, until, milliwh in rows:
                    span = (min(span[0], at), max(span[1], until))
                    part = milliwh * share * one.slices / whole
                    given += part
                    yield key, claimed, [(at, until, part)]
            if drawn > given * (1.0 + 1e-9):  # slices that nobody made
                yield self._idle[card], False, [(span[0], span[1], drawn - given)]


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    total, at = 0.0, float("-inf")
    for begin, stop in sorted(spans):
        if stop > at:
            total += stop - max(at, begin)
            at = stop
    return total
