"""The janitor role: what keeps Redis tidy, and never at the expense of who reads it."""
