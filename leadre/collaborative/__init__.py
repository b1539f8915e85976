"""The collaborative signal: which ads follow which in the users' histories, by ad id alone."""
