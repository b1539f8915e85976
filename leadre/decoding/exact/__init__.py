"""The exact search in arrays, and the decoders it runs on. LEADRE §3.4, Algorithm 2.

Entered by `engine.BeamSearchEngine`.
"""
