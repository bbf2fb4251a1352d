from collections.abc import Iterable, Sequence

def phase_states(
    readings: Iterable[tuple[float, ...]],
    nameplate_w: float,
    shares: Sequence[float] | None = None,
    learn_s: float = ...,
) -> list[int]: ...
