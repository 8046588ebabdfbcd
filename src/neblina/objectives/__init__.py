"""What training minimises.

May import `core`, `processes`, `denoisers`, `guidance` and `samplers`.
"""
