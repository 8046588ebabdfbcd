"""Pictures and their labels, from folders, archives, IDX files and scikit-learn, in an order that can be resumed.

May import `core`.
"""
