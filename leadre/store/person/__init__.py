"""A person's data: removed from the tables and from Redis, and looked for there. docs/operations.md, "Forgetting"."""
