"""How far two ways of computing the same logits may differ, by the dtype that they are computed in."""

from __future__ import annotations

import torch

# Largest difference of logits in units of their spread over the vocabulary: rounding, in another order of sums. Over 30
# blocks in bfloat16 two orders of SmolLM2-135M differ by up to 0.21, and either from float32 by up to 0.37.
ROUNDING = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 0.4}
