"""The JSON schema of the site file, for editors: `python -m tidegate.config.schema > config/site.schema.json`."""

import json
from typing import Any

from tidegate.config.site import Site


def site_schema() -> dict[str, Any]:
    """The JSON schema that editors complete and check site files with. Rules between keys are not in it."""
    schema = Site.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Tidegate site file"
    return schema


def schema_text() -> str:
    """The text of site.schema.json."""
    return json.dumps(site_schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
