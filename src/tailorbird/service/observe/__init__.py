"""What is told of requests while they are served: metrics, logs, traces."""
