"""card.md: what a person should know of a stored model, written from what the run knows anyway.

data.py        which data sets: subjects, hours, sensors and rates, licences       the shard sets' manifests
results.py     by class, and what folds of the same recipe gave                    metrics, results.json
loading.py     three lines of Python, and the commands
pretrained.py  the card of a pretrained model; finetuning/card.py that of a fine-tuned one
"""
