"""Commands of who runs the servers: who may ask them, and whose data is in them."""
