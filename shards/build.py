"""Build balanced WebDataset shards from HDF5 recordings, once.

python shards/build.py --data_root recordings --datasets cows goats --output_folder shard_set
python shards/build.py --data_root recordings --output_folder shard_set --ray_address auto     # a Ray cluster
"""

from aar_dist.base.errors import run_door
from aar_dist.shards.command import main

if __name__ == "__main__":
    run_door(main)
