"""Pretrain the sensor encoder.

deepspeed --num_accelerators 2 launch/pretrain.py --config configs/quickstart.yaml --data.shards DIR --out DIR   # CPU
deepspeed launch/pretrain.py --config configs/pretrain/aar.yaml --data.shards DIR --out DIR      # this machine's GPUs
deepspeed --hostfile hosts launch/pretrain.py --config configs/pretrain/aar.yaml --data.shards DIR --out DIR
"""

from aar_dist.base.errors import run_door

if __name__ == "__main__":
    run_door("aar_dist.training.pretrain")
