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
