"""What makes ``tracker-admin`` one program: its options, its output, what it asks of instances."""
