"""The command line ``tracker-admin``: one module a command, and what the commands share."""
