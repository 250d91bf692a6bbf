"""The PostgreSQL sink, for any number of processors. It requires psycopg 3."""
