"""Control vectors as repeng writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_like_repeng(path: Path, directions: dict[int, np.ndarray]) -> None:
    """The calls that repeng's export_gguf makes."""
    from gguf import GGUFWriter

    writer = GGUFWriter(str(path), "controlvector")
    writer.add_string("controlvector.model_hint", "qwen2")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
