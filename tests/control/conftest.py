"""A world for the fleet."""

from pathlib import Path

import pytest
from fleet_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
