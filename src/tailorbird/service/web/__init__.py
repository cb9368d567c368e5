"""HTTP: connections, paths, bodies, answers."""
