from typing import Literal, NamedTuple

class Policy(NamedTuple):
    name: str
    unit: Literal["W", "W/s", "1"]
    tighter: Literal["down", "up", ""]
    off: float
    range: Literal["from zero", "above zero", "signed", "switch"]
    hi: float
    text: str
    @property
    def lo(self) -> float: ...
    @property
    def is_share(self) -> bool: ...
    def refusal(self, value: float) -> str: ...
    def is_wider(self, value: float, than: float) -> bool: ...

POLICY_BY_NAME: dict[str, Policy]
POLICY_NAMES_BY_NUMBER: tuple[str, ...]
OFF: float

def defaults() -> dict[str, float | list[float]]: ...
def layout() -> dict[str, int]: ...
