#!/usr/bin/env bash
# The whole way on a simulated herd: HDF5 -> shards -> pretraining -> store -> folds -> page. Usage: launch/quickstart.sh OUT
set -euo pipefail
out=${1:?usage: launch/quickstart.sh OUT}
here=$(cd "$(dirname "$0")/.." && pwd)
source "$here/launch/ranks.sh"

say() { printf '\n== %s\n' "$1"; }

# Each data set's folder appears whole; a run that was stopped between the two has only the first.
if [ ! -d "$out/recordings/sim_cattle" ] || [ ! -d "$out/recordings/sim_horses" ]; then
    say "1/5 simulating a herd (no animal was recorded: these data are made up by a physical model)"
    run aar-dist simulate "$out/recordings" --overwrite
fi
say "2/5 recordings -> shards"
run python "$here/shards/build.py" --data_root "$out/recordings" --output_folder "$out/shards" --longest_segment_s 10 --shard_size 4MB
say "3/5 pretraining on ${ranks} ranks"
run deepspeed "${launcher[@]}" "$here/launch/pretrain.py" --config "$here/configs/quickstart.yaml" \
    --data.shards "$out/shards" --out "$out/run" --store.path "$out/store"
say "4/5 what it is worth: fine-tuning on animals kept apart, beside baselines and a network without pretraining"
run python "$here/launch/folds.py" --config "$here/configs/finetune/quickstart.yaml" \
    --data.shards "$out/shards" --store.path "$out/store" --out "$out/folds"
say "5/5 the page"
run aar-dist report "$out/folds" "$out/run" --out "$out/report.html"

cat <<TXT

Everything is in $out (the recordings are SIMULATED: nothing here says anything about animals):
  report.html          the page: open it in a browser
  recordings/          HDF5, one contiguous recording a file
  shards/              tar shards and their Parquet manifest      aar-dist inspect $out/shards
  run/                 pretraining: every number, pictures        aar-dist dashboard $out/run
  folds/               predictions and scores of every fold       $out/folds/results.md
  store/               the models                                 aar-dist inspect store://quickstart@latest --store $out/store

What an animal did, from the model that was trained on all of them:
  aar-dist predict store://quickstart-behaviour@latest $out/recordings/sim_cattle $out/ethogram --store $out/store

Next, with recordings of your own:
  aar-dist convert --list                                         published layouts, or any table of CSV or Parquet
  python shards/build.py --data_root RECORDINGS --output_folder SHARDS
  aar-dist inspect configs/pretrain/aar.yaml                      what the model will cost
  deepspeed launch/pretrain.py --config configs/pretrain/aar.yaml --data.shards SHARDS --out RUN
TXT
