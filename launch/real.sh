#!/usr/bin/env bash
# Published recordings -> shards -> pretraining with ZeRO-2 -> folds of four data sets -> page. Usage: launch/real.sh DATA OUT
# DATA holds cow_walking_raw.tar.xz, otariids_raw.tar.xz, hapt_raw.tar.xz, motionsense_raw.tar.xz and the index files beside them.
set -euo pipefail
data=${1:?usage: launch/real.sh DATA OUT}
out=${2:?usage: launch/real.sh DATA OUT}
here=$(cd "$(dirname "$0")/.." && pwd)
source "$here/launch/ranks.sh"

for name in cow_walking otariids hapt motionsense; do
    [ -d "$out/recordings/$name" ] || run aar-dist convert "$name" "$data/${name}_raw.tar.xz" "$out/recordings"
done
run python "$here/shards/build.py" --data_root "$out/recordings" --datasets cow_walking otariids hapt \
    --output_folder "$out/shards" --longest_segment_s 10
# By themselves: what is learned of the others is tried on people of whom pretraining has seen nothing.
run python "$here/shards/build.py" --data_root "$out/recordings" --datasets motionsense \
    --output_folder "$out/motionsense" --longest_segment_s 10
run deepspeed "${launcher[@]}" "$here/launch/pretrain.py" --config "$here/configs/pretrain/real.yaml" \
    --data.shards "$out/shards" --out "$out/run" --store.path "$out/store"
studies=()
for name in cow_walking otariids hapt motionsense; do
    shards=$out/shards
    [ "$name" = motionsense ] && shards=$out/motionsense
    run python "$here/launch/folds.py" --config "$here/configs/finetune/$name.yaml" \
        --data.shards "$shards" --store.path "$out/store" --out "$out/folds/$name"
    studies+=("$out/folds/$name")
done
run aar-dist report "${studies[@]}" "$out/run" --out "$out/report.html"
