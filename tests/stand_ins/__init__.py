"""Stand-ins at the border of vendor modules, for devices that no machine of ours has."""
