"""The command line ``tracker-admin``: one module for each command or group of commands."""
