"""What a user asks for, on a `Model`: no terminals, no web, only work and its results.

May import everything below.
"""
