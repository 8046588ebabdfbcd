"""Plans over plans: how several beliefs become one, in as few network calls as there are networks.

May import `core`, `processes` and `denoisers`.
"""
