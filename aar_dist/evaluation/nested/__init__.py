"""Choosing settings inside each fold, by its validation subjects: the test side is asked once, of what was chosen.

choose -> grid: every combination     each trained -> trained.json -> choice: the lowest validation loss
"""
