"""What is beside LEADRE in a simulated system: popularity, co-visitation, a two-tower model, and the rankers. Ours."""
