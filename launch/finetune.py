"""Fine-tune a stored model on labelled windows: one fold, or a final model on all subjects.

python launch/finetune.py --config configs/finetune/quickstart.yaml --data.shards DIR --store.path DIR --out DIR
deepspeed launch/finetune.py --config configs/finetune/hapt.yaml --data.shards DIR --store.path DIR \
    --init_from store://real@latest --folds folds.json --fold 0 --out DIR
"""

from aar_dist.base.errors import run_door

if __name__ == "__main__":
    run_door("aar_dist.training.finetuning.finetune")
