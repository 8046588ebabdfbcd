"""Encoders: from what a user says (a prompt, a label, a map) to a Condition.

A prompt is parsed (`weights`), cut into tokens (`tokens`) and into the windows a network reads (`prompts`), read by a
network (`text`, `ldm_bert`), and laid out as a family of models expects it (`families`).

Imports nothing above `core`.
"""
