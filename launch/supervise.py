"""Pretrain or fine-tune, started again until it is finished. The same command goes on.

python launch/supervise.py --num_accelerators 2 launch/pretrain.py --config configs/quickstart.yaml --out RUN …   # CPU
python launch/supervise.py --hostfile hosts launch/pretrain.py --config configs/pretrain/aar.yaml --out RUN …
python launch/supervise.py --status RUN
"""

from aar_dist.base.errors import run_door

if __name__ == "__main__":
    run_door("aar_dist.training.supervision.main")
