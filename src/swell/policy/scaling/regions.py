"""Which region a zone is in, from its name. Pure."""

import re

_ENDINGS = (
    r"-az\d+",  # AWS zone ids: use1-az2
    r"-[a-z]",  # GCP: us-east1-b
    r"(?<=\d)[a-z]",  # AWS: us-east-1b
    r"-\d",  # Azure: eastus-1
)


def region_of(zone: str) -> str:
    """`us-east-1` of `us-east-1b`, `us-east1` of `us-east1-b`, `use1` of `use1-az2`, `eastus` of `eastus-1`.

    A name of none of these forms is taken for a region. AWS regions end like Azure zones; with their dashes before and
    after the direction they are told apart.
    """
    if re.fullmatch(r"[a-z]{2}(-gov)?-[a-z]+-\d", zone):
        return zone
    for ending in _ENDINGS:
        shorter = re.sub(f"{ending}$", "", zone)
        if shorter and shorter != zone:
            return shorter
    return zone
