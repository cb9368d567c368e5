"""The command line: parse, call the facade, render."""
