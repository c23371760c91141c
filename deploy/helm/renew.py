"""`make chart`: renew what follows from code and chart: values.schema.json and the golden files.

The chart is rendered by Helm's own library, from a wheel: no helm binary is needed.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

from swell.spec import spec_json_schema
from swell.spec.base import SpecModel

HERE = Path(__file__).resolve().parent
CHART = HERE / "swell"
SCHEMA = CHART / "values.schema.json"
EXAMPLES = CHART / "examples"
GOLDEN = HERE.parents[1] / "tests" / "kubernetes" / "golden"
RELEASE, NAMESPACE = "swell", "serving"
NOTES = "NOTES.txt"

Object = dict[str, Any]


def values_schema() -> str:
    """The schema of the chart's values, with that of swell.yaml as `spec`."""
    schema = yaml.safe_load((HERE / "values.schema.yaml").read_text())
    spec = spec_json_schema()
    del spec["$schema"]
    own = spec.pop("$defs")
    for model in _spec_models():
        if model.__name__ in own:
            _accept_aliases(own[model.__name__], model)
    clashes = own.keys() & schema["$defs"].keys()
    if clashes:
        sys.exit(f"values.schema.yaml defines what the spec defines: {', '.join(sorted(clashes))}; rename it there")
    schema["$defs"] |= own
    schema["properties"] = {"spec": spec, **schema["properties"]}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _spec_models() -> Iterator[type[SpecModel]]:
    """Every part of a spec."""
    rest = [SpecModel]
    while rest:
        found = rest.pop()
        yield found
        rest += found.__subclasses__()


def _accept_aliases(schema: Object, model: type[SpecModel]) -> None:
    """Let other names of fields pass: Swell takes them, and says what is wrong with them in its own words."""
    whole = next(each for each in (schema, *schema.get("anyOf", ())) if "properties" in each)  # others are short forms
    for alias, path in model.aliases.items():
        whole["properties"].setdefault(alias, True)
        if path[0] in whole.get("required", []):
            whole["required"].remove(path[0])


def render(values: Object, *, release: str = RELEASE, namespace: str = NAMESPACE) -> dict[str, str]:
    """What Helm makes of the templates, by name. Raises helm_python.HelmError with the chart's own words."""
    with helm_python.Chart.load(CHART) as chart:
        found = chart.render(values, name=release, namespace=namespace)
    return {Path(name).name: text for name, text in sorted(found.items())}


class _Loader(yaml.SafeLoader):
    """Takes `=` for a string, as Kubernetes does and YAML 1.1 did not."""


_Loader.add_constructor("tag:yaml.org,2002:value", yaml.SafeLoader.construct_yaml_str)


def objects(rendered: dict[str, str]) -> Iterator[Object]:
    """The objects in what was rendered."""
    for name, text in rendered.items():
        if name != NOTES:
            yield from (each for each in yaml.load_all(text, _Loader) if each is not None)


def value_sets() -> dict[str, Object]:
    """Values that the chart is rendered with: its own, each example's, and those that switch much on."""
    found: dict[str, Object] = {"default": {}}
    for path in (*sorted(EXAMPLES.glob("*.yaml")), *sorted(GOLDEN.glob("*.values.yaml"))):
        found[path.name.partition(".")[0]] = yaml.safe_load(path.read_text())
    return found


def golden(values: Object) -> str:
    """One file of everything, template after template."""
    parts = [f"# {name}\n{text.strip()}\n" for name, text in render(values).items() if text.strip()]
    return "\n".join(parts)


def main() -> None:
    SCHEMA.write_text(values_schema())
    for name, values in value_sets().items():
        (GOLDEN / f"{name}.golden").write_text(golden(values))


if __name__ == "__main__":
    main()
