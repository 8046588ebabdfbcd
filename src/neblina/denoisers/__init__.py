"""From what a network predicts to a posterior over the clean data, and exact denoisers to prove things with.

May import `core`, `processes` and `nets`.
"""
