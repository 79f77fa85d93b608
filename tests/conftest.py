"""What every test can rely on: no window, no data of yours, the same random numbers."""

import os

import pytest
import torch

os.environ["MPLBACKEND"] = "agg"


@pytest.fixture(autouse=True)
def same_for_everyone(monkeypatch):
    monkeypatch.delenv("GENCOURSE_DATA", raising=False)
    torch.manual_seed(0)
