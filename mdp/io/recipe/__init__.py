"""Settings: what there is to set, where values come from, and what a command line asks for."""
