"""The status page's parts: each makes a piece of HTML of what the server knows."""
