"""PostgreSQL: one database for any number of processors. Needs psycopg 3."""
