"""Run folders one after the other in the processes of one launch, which costs its imports once.

accelerate launch --config_file … -m tests.trainer.together FOLDER…

A folder that does not exist yet and ends in “ again” is the run of that name from its first
checkpoint on. At the end the first process says, folder by folder, how many tensors of the
checkpoints were split.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tests.trainer.judging import first_step, from_checkpoint
from trainer import distributed, ranks
from trainer.__main__ import main

whole_tensors = distributed.whole_tensors
split: dict[str, int] = {}


def run(folder: Path) -> int:
    """Run or resume the folder."""
    if ranks.is_main() and not folder.exists():
        source = folder.with_name(folder.name.removesuffix(" again"))
        from_checkpoint(source, folder, step=first_step(source))
    distributed.barrier()
    split[folder.name] = 0

    def count(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        split[folder.name] += sum(map(distributed.is_split, tensors.values()))
        return whole_tensors(tensors)

    distributed.whole_tensors = count
    return main(["run", str(folder)])


if __name__ == "__main__":
    distributed.end = distributed.barrier  # the processes stay together until the last folder
    for argument in sys.argv[1:]:
        if code := run(Path(argument)):
            sys.exit(code)  # the launcher ends the others
    if ranks.is_main():
        sys.stdout.write(f"\n{json.dumps(split)}\n")
