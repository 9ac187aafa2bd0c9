"""``aar-dist doctor``: whether a machine, or every host of a hostfile, is fit for training, before it costs a thing."""
