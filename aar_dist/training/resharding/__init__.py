"""A checkpoint of one cluster, taken up by another.

files of any ZeRO stage and number of ranks -> Source: any stretch of any parameter, its moments, the step
    -> the objective's weights, before DeepSpeed is given it
    -> this rank's share of the optimizer state, after

Nothing is converted on disk: each rank maps the files and copies what it needs, parameter by parameter.
"""
