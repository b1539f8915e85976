"""A simulated ad system: what LEADRE would change, measured in worlds whose truth is known. LEADRE §5.3.

Everything here is a simulation and says so. Users arrive, branches retrieve, the Mixer's merge makes one list, a ranker
scores it, an auction sells the slots, and what users do goes back into the system. The hidden truth is in `nature.py`
and nowhere else: no branch and no ranker can import or be given it (docs/simulation.md).
"""
