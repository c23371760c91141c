"""`swell schema`."""

from swell.cli.output import JsonOption, command, print_json


@command
def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of swell.yaml, for editors and checks."""
    from swell.spec import spec_json_schema

    document = spec_json_schema()
    if as_json:
        print_json(document)
    else:
        import json

        print(json.dumps(document, indent=2, ensure_ascii=False))
