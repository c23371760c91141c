"""`make crds`: renew the definitions of Swell's custom resources, which follow from the spec's types."""

from pathlib import Path

import yaml

from swell.spec.custom_resources import GROUP, KINDS, definition

HERE = Path(__file__).resolve().parent
FOLDERS = (HERE, HERE.parent / "helm" / "swell" / "files" / "crds")  # a chart may read only what is in it
HEADER = "# Made of the types in src/swell/spec by `make crds`; a change goes there.\n"


def files() -> dict[Path, str]:
    """What is to be in each file."""
    texts = {f"{GROUP}_{plural}.yaml": HEADER + _text(definition(plural)) for plural in KINDS}
    return {folder / name: text for folder in FOLDERS for name, text in texts.items()}


def _text(document: object) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice, for people."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
