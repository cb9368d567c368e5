"""What runs inside the rivals: the same function behind each of them, written the way its documentation shows.

These files are run by the rivals' own interpreters, which have neither this package nor Tailorbird.
"""
