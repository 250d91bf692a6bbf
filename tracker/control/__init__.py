"""What operators work with: the command line ``tracker-admin``."""
