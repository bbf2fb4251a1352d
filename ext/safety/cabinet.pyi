STEP_PERMILLE: int
STEP_W_MIN: int
STEP_READINGS: int
RETURN_S: int

def next_mode(
    mode: int,
    *,
    tripped: bool = ...,
    stop: bool = ...,
    derated: bool = ...,
    moving: bool = ...,
    manual: bool = ...,
    step: int = ...,
) -> int: ...
