"""A run that is started again until it is finished: ``launch/supervise.py``, and :mod:`.main` behind it."""
