"""What every test can rely on: no window, no data of yours, the same random numbers.

GENCOURSE_SEED=1 make unit tries other random numbers.
"""

import os
import random

import numpy as np
import pytest
import torch

os.environ["MPLBACKEND"] = "agg"
SEED = int(os.environ.get("GENCOURSE_SEED", "0"))


@pytest.fixture(autouse=True)
def same_for_everyone(monkeypatch):
    for name in ("GENCOURSE_DATA", "GENCOURSE_LANG"):
        monkeypatch.delenv(name, raising=False)
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
