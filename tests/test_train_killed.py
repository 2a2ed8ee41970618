"""The attack on `train` by kills and signals holds; see `hostile/train_killed.py`."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "hostile"))

import train_killed


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("RETINAFACE_TF_ATTACK"), reason="takes minutes: set RETINAFACE_TF_ATTACK")
def test_a_killed_run_loses_nothing_and_doubles_nothing(tmp_path):
    table = train_killed.attack(tmp_path, seed=1, kills=3)
    assert [faults for *_, faults in table] == [[]] * len(table)
    assert table[0][1] == 3
