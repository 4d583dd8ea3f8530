"""Tests run in one thread: tiny matrices lose by more, and results do not depend on the machine's cores."""

import torch
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)
threadpool_limits(1)
