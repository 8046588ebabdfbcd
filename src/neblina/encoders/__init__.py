"""Encoders: from what a user says (a prompt, a label, a map) to a Condition.

Imports nothing above `core`.
"""
