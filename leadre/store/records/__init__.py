"""The system of record: tables of PostgreSQL, and every statement that reads or writes them."""
