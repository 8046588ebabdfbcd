"""The command line: parse, call one function of `tasks`, write files, say where they are."""
