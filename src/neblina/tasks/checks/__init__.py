"""What can be said of a model before anything is sampled with it: what it is, what is missing, what contradicts what.

`check` holds it together; every other module here looks at one thing and says what it finds.
"""
