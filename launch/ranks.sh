# Sourced by the recipes: `deepspeed "${launcher[@]}"` takes every GPU there is, or two ranks of the CPU.
gpus=$(python -c 'import torch; print(torch.cuda.device_count())')
if [ "$gpus" -gt 0 ]; then
    ranks=$gpus
else
    ranks=2
    export DS_ACCELERATOR=cpu
fi
# A port of its own, so that two launches on one machine do not meet.
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}
launcher=(--num_accelerators "$ranks" --master_port "$port" --log_level warning)
