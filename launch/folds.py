"""Fine-tune every fold with every seed and strategy, compare with baselines, write the page. The same command goes on.

python launch/folds.py --config configs/finetune/quickstart.yaml --data.shards DIR --store.path DIR --out DIR
python launch/folds.py --config configs/finetune/hapt.yaml --data.shards DIR --store.path DIR --out DIR \
    --n_folds leave_one_out --seeds 1 2 3 --ray_address auto              # on a Ray cluster that sees the same folders
"""

from collections.abc import Sequence

from aar_dist.base.config import arguments
from aar_dist.base.errors import run_door, user_entry
from aar_dist.base.interrupts import resumes


@user_entry
@resumes
def main(argv: Sequence[str] | None = None) -> None:
    """The command: ``--config FILE`` and dotted overrides, as launch/finetune.py. See docs/evaluation.md."""
    # Here, so that Ctrl-C is one line while they are read.
    from aar_dist.evaluation.cross_validation import cross_validate
    from aar_dist.report.page import write_page

    cross_validate(arguments() if argv is None else argv, present=lambda out: write_page([out], out / "report.html"))


if __name__ == "__main__":
    run_door(main)
