#!/usr/bin/env bash
# One machine of a Ray cluster inside a SLURM job: srun --ntasks-per-node=1 launch/slurm/ray_node.sh PORT
set -eu
head=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
room=(--num-cpus "${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --disable-usage-stats --block)
if [ "$SLURM_NODEID" = 0 ]; then
    exec ray start --head --port "$1" --include-dashboard false "${room[@]}"
fi
until (: >"/dev/tcp/$head/$1") 2>/dev/null; do sleep 1; done
exec ray start --address "$head:$1" "${room[@]}"
