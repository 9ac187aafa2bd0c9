#!/usr/bin/env bash
# One machine of a Ray cluster inside a SLURM job: srun --ntasks-per-node=1 launch/slurm/ray_node.sh ADDRESS PORT
set -eu
room=(--num-cpus "${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}" --disable-usage-stats --block)
if [ "$SLURM_NODEID" = 0 ]; then
    exec ray start --head --node-ip-address "$1" --port "$2" --include-dashboard false "${room[@]}"
fi
until (: >"/dev/tcp/$1/$2") 2>/dev/null; do sleep 1; done
exec ray start --address "$1:$2" "${room[@]}"
