"""How sure a score is, what tells two methods apart, and what a probability is worth.

Everything here is NumPy on arrays and knows no files. Windows of one subject are alike, so subjects are what is drawn,
left out, or swapped.
"""
