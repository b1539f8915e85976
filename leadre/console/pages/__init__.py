"""One page a module: what it reads, and what its template is given. Ours."""
