"""Run folders one after the other in the processes of one launch, which costs its imports once.

accelerate launch --config_file … -m tests.trainer.together FOLDER…
"""

from __future__ import annotations

import sys

from trainer import distributed
from trainer.__main__ import main

if __name__ == "__main__":
    distributed.end = distributed.barrier  # the processes stay together until the last folder
    sys.exit(max(main(["run", folder]) for folder in sys.argv[1:]))
