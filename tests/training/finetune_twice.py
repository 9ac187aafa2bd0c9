"""Run by test_finetune_runs.py: the two folds of a folds.json one after the other in one process.

argv: flags of launch/finetune.py without --fold and --out, then the folder for both runs
"""

import sys
from pathlib import Path

from aar_dist.training.finetuning.finetune import finetune
from aar_dist.training.finetuning.pretrained import load_config

*flags, out = sys.argv[1:]
for fold in (0, 1):
    finetune(load_config([*flags, f"--fold={fold}", f"--out={Path(out) / str(fold)}"]))
