#!/usr/bin/env bash
# Published recordings -> shards -> pretraining with ZeRO-2 -> folds of three data sets -> page. Usage: launch/real.sh DATA OUT
# DATA holds cow_walking_raw.tar.xz, otariids_raw.tar.xz, hapt_raw.tar.xz and the index files beside them.
set -euo pipefail
data=${1:?usage: launch/real.sh DATA OUT}
out=${2:?usage: launch/real.sh DATA OUT}
here=$(cd "$(dirname "$0")/.." && pwd)
source "$here/launch/ranks.sh"

for name in cow_walking otariids hapt; do
    [ -d "$out/recordings/$name" ] || run aar-dist convert "$name" "$data/${name}_raw.tar.xz" "$out/recordings"
done
run python "$here/shards/build.py" --data_root "$out/recordings" --datasets cow_walking otariids hapt \
    --output_folder "$out/shards" --longest_segment_s 10
run deepspeed "${launcher[@]}" "$here/launch/pretrain.py" --config "$here/configs/pretrain/real.yaml" \
    --data.shards "$out/shards" --out "$out/run" --store.path "$out/store"
for name in cow_walking otariids hapt; do
    run python "$here/launch/folds.py" --config "$here/configs/finetune/$name.yaml" \
        --data.shards "$out/shards" --store.path "$out/store" --out "$out/folds/$name"
done
run aar-dist report "$out/folds/cow_walking" "$out/folds/otariids" "$out/folds/hapt" "$out/run" --out "$out/report.html"
