"""The servers that are compared, each started as its documentation says, in a process and an environment of its own."""
