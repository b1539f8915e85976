"""How the servers and the registry stand, in short questions: for `leadre doctor`."""
