"""Run folders one after the other in the processes of one launch, which costs its imports once.

accelerate launch --config_file … -m tests.trainer.together FOLDER…

A folder that does not exist yet and ends in “ again” is the run of that name from its first
checkpoint on.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.trainer.judging import from_checkpoint
from trainer import distributed, ranks
from trainer.__main__ import main


def run(folder: Path) -> int:
    """Run or resume the folder."""
    if ranks.is_main() and not folder.exists():
        from_checkpoint(folder.with_name(folder.name.removesuffix(" again")), folder, step=1)
    distributed.barrier()
    return main(["run", str(folder)])


if __name__ == "__main__":
    distributed.end = distributed.barrier  # the processes stay together until the last folder
    for argument in sys.argv[1:]:
        if code := run(Path(argument)):
            sys.exit(code)  # the launcher ends the others
    if ranks.is_main():
        sys.stdout.write("split" if "trainer.sharding" in sys.modules else "whole")
