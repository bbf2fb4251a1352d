"""`[notify]` of a site file: who is told of alarms, and where the site shows that it lives; nobody else is called."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidegate.config.site_buses import Name, Strict

TARGETS_MAX = 16


class NotifyTarget(Strict):
    """Somebody who is told. The address stands in a file of its own, since most have a secret in them."""

    name: Name
    url_file: Annotated[
        str, Field(min_length=1, description="file beside the site file with one Apprise URL; chmod 600")
    ]
    priority: Annotated[Literal["low", "medium", "high"], Field(description="the least that is told")] = "medium"
    role: Annotated[
        Literal["read", "operate", "maintain"], Field(description="maintain is also told what only it can mend")
    ] = "operate"


class Notify(Strict):
    """Messages to people."""

    to: Annotated[tuple[NotifyTarget, ...], Field(max_length=TARGETS_MAX)] = ()
    quiet_s: Annotated[
        float, Field(ge=10, le=86_400, description="an alarm that comes again within this is not told again")
    ] = 900.0
    silent_s: Annotated[float, Field(ge=5, le=3600, description="without a word of the site, that is told too")] = 30.0
    heartbeat_url: Annotated[str | None, Field(pattern=r"^https?://\S+$", description="asked while the site lives")] = (
        None
    )
    heartbeat_s: Annotated[float, Field(ge=10, le=86_400)] = 60.0

    @model_validator(mode="after")
    def _whole(self) -> "Notify":
        names = [one.name for one in self.to]
        if len(set(names)) < len(names):
            raise ValueError("two of notify.to have one name; give each its own")
        return self
