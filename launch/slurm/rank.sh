#!/usr/bin/env bash
# One rank of a run: tells it its place among all, and becomes it, so that SLURM's signals reach it.
#     srun launch/slurm/rank.sh launch/pretrain.py --config …        # with --ntasks-per-node ranks on each node
set -eu
export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
export WORLD_SIZE=$SLURM_STEP_NUM_TASKS LOCAL_SIZE=${SLURM_STEP_TASKS_PER_NODE%%[!0-9]*}
export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)}
# Of a job's own, and below the ports that systems hand out themselves.
export MASTER_PORT=${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}
exec python -u "$@"
