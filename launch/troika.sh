#!/usr/bin/env bash
# Channel inflation on published recordings: PPG and ECG of TROIKA -> pretraining of two channels -> heart rate from five,
# and the quality of BUT PPG from one, each against the same network without pretraining -> page.
# Usage: launch/troika.sh DATA OUT
# DATA holds troika_ieeespc2015.tar.xz and but_ppg_v1_48.tar.xz.
set -euo pipefail
data=${1:?usage: launch/troika.sh DATA OUT}
out=${2:?usage: launch/troika.sh DATA OUT}
here=$(cd "$(dirname "$0")/.." && pwd)
source "$here/launch/ranks.sh"

archives=(troika_ieeespc2015 but_ppg_v1_48)
for name in "${archives[@]}"; do
    set=${name%_*}
    set=${set%_v1}
    [ -d "$out/recordings/$set" ] || run aar-dist convert "$set" "$data/$name.tar.xz" "$out/recordings"
    run python "$here/shards/build.py" --data_root "$out/recordings" --datasets "$set" \
        --output_folder "$out/shards/$set" --longest_segment_s 10
done
run deepspeed "${launcher[@]}" "$here/launch/pretrain.py" --config "$here/configs/pretrain/troika.yaml" \
    --data.shards "$out/shards/troika" --out "$out/run" --store.path "$out/store"
for name in troika but_ppg; do
    run python "$here/launch/folds.py" --config "$here/configs/finetune/$name.yaml" \
        --data.shards "$out/shards/$name" --store.path "$out/store" --out "$out/folds/$name"
done
run aar-dist report "$out/folds/troika" "$out/folds/but_ppg" "$out/run" --out "$out/report.html"
