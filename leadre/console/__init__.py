"""The console: pages that show one user, one ad, the index, the queue and the releases, from a server on the loopback.

For the people who run LEADRE (§4.4.1); the paper has none. It shows personal data on purpose and logs none of it.
"""
