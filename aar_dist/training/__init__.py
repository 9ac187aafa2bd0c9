"""From a configuration to a published model, on one rank or on many.

outside of the ranks   doctor -> supervision -> (deepspeed) -> ranks
all ranks, first       meeting -> group
a run                  pretrain | finetuning -> run -> loop -> engine -> saving, resharding -> publishing
beside the loop        metrics, validation, health, stopping, tracking
before a run           sizes, footprint, inspect: what a configuration needs
"""
